//! The store on a directory of the test.
