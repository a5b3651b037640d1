//! Sentences that hold for every plan.
