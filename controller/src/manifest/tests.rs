//! Tests of loading: the example of the design, goldens of diagnostics, typos, bytes at random, other people's files,
//! published schemas.

mod corpus;
mod design;
mod goldens;
mod random;
mod schemas;
mod typos;
