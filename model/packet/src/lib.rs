//! parfait-packet
