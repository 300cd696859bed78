//! The file of `--tracing-config-file`, as upstream reads it.
//! Sources: `k8s.io/apiserver/pkg/apis/apiserver/v1` (`TracingConfiguration`) and `k8s.io/component-base/tracing/api/v1`.

use serde::Deserialize;

/// The collector that is asked when the file names none.
const ENDPOINT_DEFAULT: &str = "localhost:4317";
/// All of them.
const MILLION: i32 = 1_000_000;
/// The versions of the form: they say the same.
const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingConfiguration {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no such configuration.
    #[error("{0}")]
    Form(String),
    /// A field has a value that it cannot have.
    #[error("{field}: Invalid value: {value}: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it has.
        value: String,
        /// Why it cannot be.
        why: &'static str,
    },
}

impl TracingConfiguration {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// It is something else, or a value is out of its range.
    pub fn from_text(text: &str) -> Result<TracingConfiguration, ConfigError> {
        let config: TracingConfiguration =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Form(error.to_string()))?;
        if config.kind != "TracingConfiguration" || !VERSIONS.contains(&&*config.api_version) {
            let (version, kind) = (&config.api_version, &config.kind);
            return Err(ConfigError::Form(format!(
                "no kind {kind:?} is registered for version {version:?}"
            )));
        }
        let invalid = |field, value: &dyn std::fmt::Display, why| ConfigError::Invalid {
            field,
            value: value.to_string(),
            why,
        };
        if let Some(rate) = config.sampling_rate_per_million {
            let field = "samplingRatePerMillion";
            if rate < 0 {
                return Err(invalid(field, &rate, "sampling rate must be positive"));
            }
            if rate > MILLION {
                let why = "sampling rate per million must be less than or equal to one million";
                return Err(invalid(field, &rate, why));
            }
        }
        if format!("http://{}", config.endpoint()).parse::<http::Uri>().is_err() || config.endpoint().contains('/') {
            return Err(invalid(
                "endpoint",
                &format!("{:?}", config.endpoint()),
                "must be host:port",
            ));
        }
        Ok(config)
    }

    /// The collector, as `host:port`.
    pub fn endpoint(&self) -> &str {
        self.endpoint
            .as_deref()
            .filter(|endpoint| !endpoint.is_empty())
            .unwrap_or(ENDPOINT_DEFAULT)
    }

    /// The part of new traces that is sampled, between 0 and 1.
    pub fn rate(&self) -> f64 {
        f64::from(self.sampling_rate_per_million.unwrap_or(0)) / f64::from(MILLION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_upstream_reads_them() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n";
        for (rest, expect) in [
            ("", Ok(("localhost:4317", 0.0))),
            (
                "endpoint: 127.0.0.1:4000\nsamplingRatePerMillion: 250000\n",
                Ok(("127.0.0.1:4000", 0.25)),
            ),
            ("samplingRatePerMillion: -1\n", Err("sampling rate must be positive")),
            (
                "samplingRatePerMillion: 1000001\n",
                Err("less than or equal to one million"),
            ),
            ("endpoint: https://collector/\n", Err("must be host:port")),
            ("sampling: 1\n", Err("sampling")),
        ] {
            let config = TracingConfiguration::from_text(&format!("{head}{rest}"));
            match (config, expect) {
                (Ok(config), Ok(expect)) => assert_eq!((config.endpoint(), config.rate()), expect),
                (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
                (config, expect) => panic!("{rest}: {config:?}, not {expect:?}"),
            }
        }
        let other = TracingConfiguration::from_text("apiVersion: v1\nkind: Pod\n").unwrap_err();
        assert_eq!(other.to_string(), "no kind \"Pod\" is registered for version \"v1\"");
    }
}
