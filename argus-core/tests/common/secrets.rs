//! The corpus of made-up secrets, and the search for them.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

/// A text with a secret in it.
#[derive(Clone, Debug)]
pub struct Made {
    pub rule: String,
    pub text: String,
    pub before: String,
    pub after: String,
    secret: String,
}

/// Prefixes stand apart from their secrets in the file, so that no scanner of repositories takes it for a leak.
pub fn corpus() -> Vec<Made> {
    let made = |line: &str| {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |k: &str| match &v[k] {
            serde_json::Value::Array(parts) => parts.iter().map(|p| p.as_str().unwrap()).collect(),
            whole => whole.as_str().unwrap().to_owned(),
        };
        let (before, secret, after) = (text("before"), text("secret"), text("after"));
        Made { rule: text("rule"), text: format!("{before}{secret}{after}"), before, after, secret }
    };
    include_str!("../secrets/corpus.jsonl").lines().map(made).collect()
}

pub fn innocent() -> Vec<&'static str> {
    include_str!("../secrets/innocent.txt").lines().collect()
}

impl Made {
    /// What must be nowhere: the secret, or each line of a long one, its armour aside.
    pub fn needles(&self) -> Vec<&str> {
        let lines = self.secret.split('\n').flat_map(|l| l.split("\\n"));
        let lines: Vec<&str> = lines.filter(|l| !l.contains("-----") && !l.is_empty()).collect();
        assert!(!lines.is_empty(), "{self:?}");
        lines
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.needles().iter().any(|n| memmem(bytes, n.as_bytes()))
    }
}

fn memmem(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = bytes;
    while let Some(i) = rest.iter().position(|b| b == first) {
        rest = &rest[i..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
