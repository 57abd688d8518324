//! Secrets in files without a structure: the sink withholds by a member's key, and a text has no members. Pure. By line: what follows a key that redaction hides,
//! such as `DB_PASSWORD=` or `token:`, is withheld to the end of its line. A secret that goes on in the next line is not recognised.

use serde_json::Value;

use crate::redaction::Redaction;

/// What stands in place of a text's secret.
const WITHHELD: &str = "[redacted]";

/// The form of a text for the record; any other value is itself.
pub(crate) fn veil(value: &Value, redaction: &Redaction) -> Value {
    match value {
        Value::String(text) => {
            let lines = text.split_inclusive('\n').map(|line| veil_line(line, redaction));
            Value::String(lines.collect())
        }
        other => other.clone(),
    }
}

fn veil_line(line: &str, redaction: &Redaction) -> String {
    let content = line.trim_end_matches(['\n', '\r']);
    for (at, _) in content.match_indices(['=', ':']) {
        let (before, after) = content.split_at(at + 1);
        let key = before[..at].trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '+'));
        let key = key.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).next().unwrap_or(key);
        if redaction.hides(key) && !after.trim().is_empty() {
            return format!("{before}{WITHHELD}{}", &line[content.len()..]);
        }
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_follows_a_secret_key_is_withheld() {
        let text = "# env\nexport DB_PASSWORD=s3cret\r\nuser=jane; \"token\" : 's3cret'\nport=1\nAuthorization: Basic s3cret\npassword=\nurl=http://h/?a=b&api_key=s3cret=";
        let veiled = "# env\nexport DB_PASSWORD=[redacted]\r\nuser=jane; \"token\" :[redacted]\nport=1\nAuthorization:[redacted]\npassword=\nurl=http://h/?a=b&api_key=[redacted]";
        assert_eq!(veil(&json!(text), &Redaction::default()), json!(veiled));
        assert_eq!(veil(&json!(text), &Redaction::none()), json!(text));
        assert_eq!(veil(&json!({"bytes":1}), &Redaction::default()), json!({"bytes":1}));
        assert_eq!(veil(&json!("é=ü\n=\n:"), &Redaction::default()), json!("é=ü\n=\n:"));
    }
}
