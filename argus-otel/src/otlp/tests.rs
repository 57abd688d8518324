use super::env::{decoded, shown};
use super::*;

const ALL_SIGNALS: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

fn from(vars: &[(&str, &str)]) -> Result<Option<OtlpPipeline>, OtlpError> {
    otlp_from_lookup("svc", |n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()))
}

#[test]
fn what_cannot_work_is_a_clear_error() {
    assert!(from(&[]).unwrap().is_none());
    assert!(from(&[(ALL_SIGNALS, "")]).unwrap().is_none());
    assert!(from(&[(ALL_SIGNALS, "http://x:1"), ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
    for bad in ["localhost:4318", "//localhost:4318", "http:///x", "http://", "ftp://x", "http://x:port"] {
        let e = from(&[(ALL_SIGNALS, bad)]).unwrap_err();
        assert!(matches!(&e, OtlpError::Endpoint { variable: ALL_SIGNALS, endpoint } if endpoint == bad), "{e:?}");
        assert!(e.to_string().contains(bad) && e.to_string().contains("http://localhost:4318"), "{e}");
    }
    #[cfg(not(feature = "tls"))]
    {
        let e = from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://u:secret@x:4318/a?key=secret")]).unwrap_err();
        assert!(matches!(e, OtlpError::Tls { .. }) && e.to_string().contains("`https://x:4318/a`"), "{e}");
        assert!(e.to_string().contains("feature `tls`"), "{e}");
    }
    let grpc = cfg!(not(feature = "grpc")).then_some(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"));
    for (variable, value) in grpc.into_iter().chain([("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")]) {
        let e = from(&[(ALL_SIGNALS, "http://x:1"), (variable, value)]).unwrap_err();
        assert!(matches!(e, OtlpError::Protocol { .. }), "{e:?}");
        assert!(e.to_string().contains(variable) && e.to_string().contains(value), "{e}");
    }
    for headers in ["bad name=x", "x=a%0Ab"] {
        let e = from(&[(ALL_SIGNALS, "http://x:1"), ("OTEL_EXPORTER_OTLP_HEADERS", headers)]).unwrap_err();
        assert!(matches!(e, OtlpError::Header { .. }) && !e.to_string().contains('\n'), "{e}");
    }
    let e = from(&[(ALL_SIGNALS, "http://x:1"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem")]).unwrap_err();
    assert!(e.to_string().contains("/key.pem") && e.to_string().contains("go together"), "{e}");
}

#[test]
fn the_general_endpoint_is_a_base_and_no_secret_is_shown() {
    let p = from(&[(ALL_SIGNALS, "http://u:secret@127.0.0.1:9/base/")]).unwrap().unwrap();
    assert_eq!(p.endpoint(), "http://127.0.0.1:9/base/v1/traces");
    assert_eq!(format!("{p:?}"), "OtlpPipeline { endpoint: \"http://127.0.0.1:9/base/v1/traces\", .. }");
    let e = p.probe(Duration::from_secs(5)).unwrap_err().to_string();
    assert!(e.contains("127.0.0.1:9/base/v1/traces") && !e.contains("secret"), "{e}");
    let p = from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/as/it/is")]).unwrap().unwrap();
    assert_eq!(p.endpoint(), "http://127.0.0.1:9/as/it/is");
    assert_eq!((decoded("a%20b%2C%zz%"), decoded("%ff")), ("a b,%zz%".into(), "%ff".into()));
    assert_eq!(shown("https://u:p@x:1/a?k=v#f"), "https://x:1/a");
}

#[test]
fn the_sampler_is_the_one_the_environment_names() {
    for (name, argument, expected) in [
        ("", "", "ParentBased(AlwaysOn)"),
        ("always_on", "", "AlwaysOn"),
        ("always_off", "", "AlwaysOff"),
        ("traceidratio", "0.25", "TraceIdRatioBased(0.25)"),
        ("traceidratio", "7", "TraceIdRatioBased(1.0)"),
        ("parentbased_always_off", "", "ParentBased(AlwaysOff)"),
        ("parentbased_traceidratio", "0.5", "ParentBased(TraceIdRatioBased(0.5))"),
    ] {
        let env = Env(|n: &str| match n {
            "OTEL_TRACES_SAMPLER" => Some(name.to_owned()),
            "OTEL_TRACES_SAMPLER_ARG" => Some(argument.to_owned()),
            _ => None,
        });
        assert_eq!(format!("{:?}", env.sampler()), expected);
    }
}
