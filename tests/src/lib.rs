//! Nothing by itself: the tests stand in `gate/` (the real binary, by topic) and in `cases_runner/` (the case files).
