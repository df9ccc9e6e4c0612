//! What is read, byte by byte and against other readers.

mod answers;
mod requests;
