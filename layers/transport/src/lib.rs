//! parfait-transport
