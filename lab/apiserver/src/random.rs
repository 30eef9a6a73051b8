//! Random names, uids and tokens, from the TLS library's generator.
//!
//! The alphabet of generated name suffixes is that of `k8s.io/apimachinery/pkg/util/rand`: no vowels and no
//! digits that read like letters, so that no suffix spells a word.

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A version 4 UUID.
pub fn uid() -> String {
    let mut b: [u8; 16] = bytes();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex(&b);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Five characters to append to a `generateName`.
pub fn suffix() -> String {
    bytes::<5>()
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// A bearer token nobody guesses.
pub fn token() -> String {
    hex(&bytes::<24>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0u8; N];
    let provider = rustls::crypto::ring::default_provider();
    provider
        .secure_random
        .fill(&mut out)
        .expect("the kernel hands out random bytes once booted");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn shapes() {
        let uid = super::uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert_ne!(uid, super::uid());
        assert_eq!(super::suffix().len(), 5);
        assert_eq!(super::token().len(), 48);
    }
}
