//! The configuration in force, as text that is a configuration again.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use super::{Config, Kind, Mode, Source};

impl Config {
    /// The effective configuration, for the operator to read. Passwords are not shown.
    pub fn describe(&self) -> String {
        let Self {
            name,
            state,
            sources,
            broker: _,
            aggregator,
            tls,
            limits,
            durability,
            clock,
        } = self;
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn Display| {
            let _ = writeln!(text, "{key} = {value}");
        };
        line("name", &quoted(name));
        line("state", &path(state));
        line("aggregator.address", &quoted(&aggregator.address));
        line("aggregator.server_name", &quoted(&aggregator.server_name));
        line("tls.ca", &path(&tls.ca));
        line("tls.certificate", &path(&tls.certificate));
        line("tls.key", &path(&tls.key));
        line("limits.memory", &quoted(&limits.memory.to_string()));
        line("limits.spool", &quoted(&limits.spool.to_string()));
        line("limits.journal", &quoted(&limits.journal.to_string()));
        line("limits.payload", &quoted(&limits.payload.to_string()));
        let mode = match durability.mode {
            Mode::Disk => "disk",
            Mode::Memory => "memory",
        };
        line("clock.unset", &quoted(clock.name()));
        line("clock.confirm", &clock.confirm.to_string());
        line("durability.mode", &quoted(mode));
        line("durability.commit_delay", &duration(durability.commit_delay));
        line("durability.retain_acked", &duration(durability.retain_acked));
        for source in sources {
            self.describe_source(source, &mut text);
        }
        text
    }

    fn describe_source(&self, source: &Source, text: &mut String) {
        let Source { name, kind } = source;
        let Kind::Mqtt(mqtt) = kind;
        let _ = writeln!(text, "\n[[source]]");
        let mut line = |key: &str, value: &dyn Display| {
            let _ = writeln!(text, "{key} = {value}");
        };
        line("type", &quoted("mqtt"));
        line("name", &quoted(name));
        line("url", &quoted(&mqtt.url));
        line("protocol", &mqtt.protocol);
        line("client_id", &quoted(&self.client_id(source)));
        if let Some(username) = &mqtt.username {
            line("username", &quoted(username));
        }
        if mqtt.password.is_some() {
            line("password", &quoted("(hidden)"));
        }
        line("qos", &mqtt.qos);
        line("receive_maximum", &mqtt.receive_maximum);
        line("keep_alive", &duration(mqtt.keep_alive));
        line("session_expiry", &duration(mqtt.session_expiry));
        line("gather", &duration(mqtt.gather));
        let files = [
            ("password_file", &mqtt.password_file),
            ("ca", &mqtt.ca),
            ("certificate", &mqtt.certificate),
            ("key", &mqtt.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                line(key, &path(file));
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn duration(duration: Duration) -> String {
    format!("\"{}\"", humantime::format_duration(duration))
}
