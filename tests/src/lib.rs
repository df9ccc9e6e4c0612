//! Nothing by itself: the tests stand in `gate/` (the real binary, by topic), in `wire/` (the real binary, byte by byte) and
//! in `cases_runner/` (the case files).
