//! Tests of loading: the example of the design, goldens of diagnostics, typos, bytes at random, other people's files.

mod design;
