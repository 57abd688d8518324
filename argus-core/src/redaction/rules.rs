//! The shapes of secrets, as data: a name, a pattern, and texts of which one must be there for the pattern to match at all. Order matters: where two
//! find the same place, the first gives its name. What merely looks random is never guessed at: a log that hides what it should tell is no log.

use std::borrow::Cow;

/// A secret known by its looks.
///
/// The pattern is a regular expression in the syntax of the `regex` crate. What its first group that takes part matches is withheld, or the whole match where
/// it has no group. It sees the text of each JSON string and of each text field by itself, unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// What the marker calls it: 1 to 64 letters, digits, `_`, `-` or `.`.
    pub name: Cow<'static, str>,
    /// The regular expression.
    pub pattern: Cow<'static, str>,
    /// Texts of three bytes or more of which each match contains one; none has a character that JSON escapes. Empty: taken from the pattern, if it tells.
    pub(crate) hints: &'static [&'static str],
}

impl Shape {
    /// A shape of your own.
    pub fn new(name: impl Into<Cow<'static, str>>, pattern: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), pattern: pattern.into(), hints: &[] }
    }

    /// The list that [`Redaction::default`](crate::Redaction::default) has.
    pub fn defaults() -> Vec<Shape> {
        let shape = |(name, pattern, hints): &(&'static str, &'static str, &'static [&'static str])| Shape {
            name: Cow::Borrowed(name),
            pattern: Cow::Borrowed(pattern),
            hints,
        };
        TABLE.iter().map(shape).collect()
    }
}

/// Name, pattern, hints. Words in either case have their hints in lower case, in capitals, and as `Word`.
const TABLE: &[(&str, &str, &[&str])] = &[
    // To the end of the text where its end line is missing. Certificates and public keys stay.
    (
        "private_key",
        r"(?s)-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?:[\r\n]+\z)?|\z)|AGE-SECRET-KEY-1[0-9A-Z]{50,}",
        &["PRIVATE KEY", "AGE-SECRET-KEY"],
    ),
    // Signed, unsigned, and encrypted (five parts, the second may be empty).
    (
        "jwt",
        r"eyJ[A-Za-z0-9_-]{8,}\.(?:[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|\.[A-Za-z0-9_-]+)(?:\.[A-Za-z0-9_-]+){0,2}",
        &["eyJ"],
    ),
    (
        "aws_secret_key",
        r#"(?i-u:secret[_ .-]?(?:access)?[_ .-]?key)\\{0,3}["']?\s{0,4}(?:=>|:=|[=:])\s{0,4}\\{0,3}["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)|(?:AKIA|ASIA)[A-Z0-9]{16}[^A-Za-z0-9/+]{1,8}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"#,
        &["AKIA", "ASIA", "ecret", "ECRET"],
    ),
    ("aws_access_key_id", r"(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)", &["AKIA", "ASIA"]),
    (
        "azure_key",
        r"(?i-u:AccountKey|SharedAccessKey|AccessKey)\s{0,2}=\s{0,2}([A-Za-z0-9+/]{20,}={0,2})",
        &["ccountKey", "ccountkey", "CCOUNTKEY", "ccessKey", "ccesskey", "CCESSKEY"],
    ),
    ("azure_sas", r"(?-u:\b)sig=([A-Za-z0-9%+/_-]{20,}={0,2})", &["sig="]),
    (
        "google_key",
        r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}",
        &["AIza", "ya29.", "GOCSPX-"],
    ),
    (
        "github_token",
        r"gh[oprsu]_[A-Za-z0-9_]{20,}|github_pat_[A-Za-z0-9_]{20,}",
        &["gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_"],
    ),
    (
        "gitlab_token",
        r"(?-u:\b)gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_.-]{16,}",
        &["glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"],
    ),
    (
        "slack_token",
        r"xox[abeoprs][-.][A-Za-z0-9.-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,})",
        &["xox", "xapp-", "hooks.slack."],
    ),
    (
        "stripe_key",
        r"(?-u:\b)[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|(?-u:\b)whsec_[A-Za-z0-9+/=]{20,}",
        &["k_live_", "k_test_", "whsec_"],
    ),
    ("npm_token", r"(?-u:\b)npm_[A-Za-z0-9]{30,}", &["npm_"]),
    ("pypi_token", r"pypi-AgE[A-Za-z0-9_-]{40,}", &["pypi-AgE"]),
    ("anthropic_key", r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{20,}", &["sk-ant-"]),
    ("openai_key", r"(?-u:\b)sk-(?:(?:proj|svcacct|admin|None|or-v1)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,})", &["sk-"]),
    (
        "service_token",
        r"(?-u:\b)(?:hf_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{32,}|do[opr]_v1_[a-f0-9]{64}|hv[bs]\.[A-Za-z0-9_-]{24,}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|dapi[a-f0-9]{32}|ATATT3[A-Za-z0-9_=-]{60,}|gls?a?c?_[A-Za-z0-9_=+/]{30,}|lin_api_[A-Za-z0-9]{32,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33})",
        &[
            "hf_", "SG.", "_v1_", "hvs.", "hvb.", "dckr_", "shpat_", "shpca_", "shppa_", "shpss_", "dapi", "ATATT3",
            "glsa_", "glc_", "lin_api_", ":AA",
        ],
    ),
    // A port is no password, nor is the tag of an image with a digest. `:~1~1` is the same in a JSON pointer.
    (
        "url_password",
        r#"(?:://|:~1~1)[^\s:/?#@\["'<>]*:(?:([^\s/?#"'<>]+)|([0-9]*[^\s0-9/?#@"'<>][^\s"'<>]*))@(?:[^s]|s[^h]|sh[^a]|sha[^2]|sha2[^5]|s?h?\z)"#,
        &["://", ":~1~1"],
    ),
    // With the header's name any credentials; without it those that no word of prose looks like.
    (
        "authorization",
        r#"(?i-u:authorization)\\{0,3}["']?\s{0,4}[:=]\s{0,4}\\{0,3}["']?(?i-u:basic|bearer|token|negotiate|ntlm|apikey)\s{1,4}([^\s"'\\,;]+)|(?i-u:\bbearer)\s{1,4}([A-Za-z._~+/-]{0,64}[0-9][A-Za-z0-9._~+/-]{11,}={0,2})|(?i-u:\bbasic)\s{1,4}([A-Za-z0-9+/]{6,}={1,2}|[A-Za-z0-9+/]*(?:[0-9][A-Za-z0-9+/]*[a-z][A-Z]|[a-z][A-Z][A-Za-z0-9+/]*[0-9])[A-Za-z0-9+/]*)"#,
        &["uthorization", "UTHORIZATION", "earer", "EARER", "asic ", "ASIC "],
    ),
    // `password=`, `"password": "…"` (once or twice escaped), `password: …` on a line of its own; between semicolons with spaces. `PWD=/…` is a directory.
    // A line may also begin and end within a JSON string within the text.
    (
        "password",
        r#"(?m)(?i-u:password|passwd|passphrase|pwd)(?:\\{0,3}["\']\s{0,4}:\s{0,4}(?:"((?:[^"\\]|\\.)+)"|\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}"|'([^']+)')|\s{0,4}(?:=>|:=|={1,2})\s{0,4}(?:"([^"]+)"|'([^']+)'|\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}"))|;\s{0,4}(?i-u:password|pwd)\s{0,4}=\s{0,4}([^;"'\s\\][^;"'\\]*)|(?i-u:password|passwd|passphrase)\s{0,4}(?:=>|:=|={1,2})\s{0,4}((?:[^\s;&"'<>\\]|\\[^nr"])*[^\s;&"'<>\\,])|(?i-u:pwd)\s{0,4}=\s{0,4}([^\s;&"'<>/\\](?:[^\s;&"'<>\\]|\\[^nr"])*)|(?:^|\\n|")[ \t-]*["\']?[A-Za-z0-9_.-]{0,64}(?i-u:password|passwd|passphrase|pwd)["\']?:[ \t]+(?:"([^"]+)"|'([^']+)'|\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}"|([^\s#"'|>&*!\[{\\](?:[^\s"\\]|\\[^nr"])*))[ \t]*(?:#.*)?(?:\r?$|\\[nr]|")"#,
        &["assw", "ASSW", "assW", "pwd", "Pwd", "PWD", "ssphrase", "ssPhrase", "SSPHRASE"],
    ),
    // In a query string, as `name=value`, as a line of an environment file, and in JSON within text.
    (
        "secret",
        r#"(?m)[?&;](?i-u:token|secret|signature|x-amz-signature|x-amz-security-token|x-goog-signature)=([^&\s#"'<>\\]+)|(?i-u:(?:access|refresh|id|auth|session)[_-]?token|client[_-]?secret|api[_-]?key|secret[_-]?key)\s{0,4}(?:=>|:=|={1,2})\s{0,4}(?:"([^"]+)"|'([^']+)'|\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}"|((?:[^\s;&"'<>\\]|\\[^nr"])*[^\s;&"'<>\\,]))|(?:^|\\n|")[ \t]*(?:export[ \t]+)?[A-Za-z0-9_.-]{0,64}(?i-u:secret|token|credentials?)[ \t]*=[ \t]*(?:"([^"\n]+)"|'([^']+)'|\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}"|((?:[^\s"'\\]|\\[^nr"])(?:[^\r\n"\\]|\\[^nr"])*?))[ \t]*(?:#.*)?(?:\r?$|\\[nr]|")|(?i-u:token|secret|api[_-]?key|secret[_-]?key|access[_-]?key)(?:"\s{0,4}:\s{0,4}"((?:[^"\\]|\\.)+)"|\\{1,3}"\s{0,4}:\s{0,4}\\{1,3}"((?:[^"\\]|\\[^"])+)\\{1,3}")"#,
        &[
            "oken",
            "OKEN",
            "ecret",
            "ECRET",
            "pi_key",
            "pi-key",
            "pikey",
            "piKey",
            "PI_KEY",
            "PIKEY",
            "PI-KEY",
            "gnature=",
            "GNATURE=",
            "redential",
            "REDENTIAL",
            "cess_key",
            "cess-key",
            "cessKey",
            "CESS_KEY",
        ],
    ),
];
