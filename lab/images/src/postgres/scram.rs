//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, without channel binding.
//!
//! PostgreSQL leaves the user's name in the exchange empty, since the start-up message has it.
//! Passwords are used as their bytes are: SASLprep changes only those with characters beyond ASCII.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// What the server asks to be repeated, PostgreSQL's own figure.
const ITERATIONS: u32 = 4096;
/// A server that asks for more wants to keep us busy.
const MOST_ITERATIONS: u32 = 1_000_000;
/// `n,,` in base64: no channel binding, no other identity.
const NO_BINDING: &str = "biws";

/// The client's side, after its first message.
pub struct Client {
    nonce: String,
    first_bare: String,
}

/// The client's side, after its last message.
pub struct Finished {
    server_signature: String,
}

impl Client {
    pub fn new(user: &str, nonce: String) -> Client {
        let first_bare = format!("n={user},r={nonce}");
        Client { nonce, first_bare }
    }

    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// Answers the server's challenge. `None` if it is not one.
    pub fn last(&self, password: &str, server_first: &str) -> Option<(String, Finished)> {
        let nonce = field(server_first, "r")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return None;
        }
        let salt = BASE64.decode(field(server_first, "s")?).ok()?;
        let iterations: u32 = field(server_first, "i")?.parse().ok()?;
        if iterations == 0 || iterations > MOST_ITERATIONS {
            return None;
        }
        let without_proof = format!("c={NO_BINDING},r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare);
        let salted = salted_password(password.as_bytes(), &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let stored_key = Sha256::digest(client_key);
        let proof = xor(client_key, hmac(&stored_key, message.as_bytes()));
        let server_key = hmac(&salted, b"Server Key");
        let finished = Finished {
            server_signature: BASE64.encode(hmac(&server_key, message.as_bytes())),
        };
        let last = format!("{without_proof},p={}", BASE64.encode(proof));
        Some((last, finished))
    }
}

impl Finished {
    /// Whether the server knew the password too.
    pub fn server_is_genuine(&self, server_last: &str) -> bool {
        field(server_last, "v") == Some(&self.server_signature)
    }
}

/// The server's side, after its challenge.
pub struct Server {
    first_bare: String,
    server_first: String,
    nonce: String,
    salted: [u8; 32],
}

impl Server {
    /// Reads the client's first message. `None` if it is not one, or wants channel binding.
    pub fn new(client_first: &str, password: &str, salt: &[u8], nonce: &str) -> Option<Server> {
        // `n,,` says that the client knows no channel binding, `y,,` that it believes we know none.
        let bare = ["n,,", "y,,"]
            .iter()
            .find_map(|h| client_first.strip_prefix(h))?;
        let nonce = format!("{}{nonce}", field(bare, "r")?);
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(salt));
        Some(Server {
            first_bare: bare.to_owned(),
            server_first,
            nonce,
            salted: salted_password(password.as_bytes(), salt, ITERATIONS),
        })
    }

    pub fn challenge(&self) -> &str {
        &self.server_first
    }

    /// The server's last message if the client's proves that it knows the password.
    pub fn last(&self, client_last: &str) -> Option<String> {
        let (without_proof, proof) = client_last.rsplit_once(",p=")?;
        let binding = field(without_proof, "c")?;
        if ![NO_BINDING, "eSws"].contains(&binding) || field(without_proof, "r")? != self.nonce {
            return None;
        }
        let message = format!("{},{},{without_proof}", self.first_bare, self.server_first);
        let stored_key = Sha256::digest(hmac(&self.salted, b"Client Key"));
        let signature = hmac(&stored_key, message.as_bytes());
        let proof: [u8; 32] = BASE64.decode(proof).ok()?.try_into().ok()?;
        if Sha256::digest(xor(proof, signature)) != stored_key {
            return None;
        }
        let server_key = hmac(&self.salted, b"Server Key");
        Some(format!(
            "v={}",
            BASE64.encode(hmac(&server_key, message.as_bytes()))
        ))
    }
}

/// The value of the attribute `name` in `a=…,b=…`.
fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message
        .split(',')
        .find_map(|part| part.split_once('=').filter(|(n, _)| *n == name))
        .map(|(_, value)| value)
}

/// `Hi` of RFC 5802, which is PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = hmac(password, &[salt, &1u32.to_be_bytes()].concat());
    let mut sum = block;
    for _ in 1..iterations {
        block = hmac(password, &block);
        sum = xor(sum, block);
    }
    sum
}

/// HMAC (RFC 2104) with SHA-256, whose block is 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let inner = Sha256::new()
        .chain_update(block.map(|b| b ^ 0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(block.map(|b| b ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn rfc_7677() {
        let client = Client::new("user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(client.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, finished) = client.last("pencil", challenge).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(finished.server_is_genuine("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!finished.server_is_genuine("v=AAAA"));
    }

    #[test]
    fn both_sides_agree_only_on_the_same_password() {
        for (typed, agree) in [("secret", true), ("Secret", false), ("", false)] {
            let client = Client::new("", "abc".to_owned());
            let server = Server::new(&client.first(), "secret", b"salt", "def").unwrap();
            let (last, finished) = client.last(typed, server.challenge()).unwrap();
            let verdict = server.last(&last);
            assert_eq!(verdict.is_some(), agree, "{typed:?}");
            assert!(verdict.is_none_or(|v| finished.server_is_genuine(&v)));
        }
    }

    #[test]
    fn a_strange_challenge_is_refused() {
        let client = Client::new("", "abc".to_owned());
        for challenge in [
            "",
            "r=xyz,s=AAAA,i=1",
            "r=abc,s=AAAA,i=1",
            "r=abcd,s=!,i=1",
            "r=abcd,s=AAAA,i=0",
            "r=abcd,s=AAAA,i=4000000000",
        ] {
            assert!(client.last("x", challenge).is_none(), "{challenge}");
        }
    }
}
