//! parfait-agent
