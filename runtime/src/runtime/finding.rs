//! What of a host stands in the way of container networks, as a value. Who looks for it is `network::findings`.

/// One obstacle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was seen, exactly: which table and chain, which setting.
    pub what: String,
    /// What does not work because of it.
    pub effect: String,
    /// The command or setting that helps.
    pub fix: String,
}
