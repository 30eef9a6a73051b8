//! parfait-application
