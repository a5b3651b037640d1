//! Tests of the YAML pass.
