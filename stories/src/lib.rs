//! parfait-stories
