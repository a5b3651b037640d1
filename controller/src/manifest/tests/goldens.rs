//! Goldens of every diagnostic.
