//! ConfigMap volumes.
//!
//! Owns: which keys become which files; Secrets follow the same rules.
//! Called by: volume set-up and refresh.
//! Never: fetches the ConfigMap.

use std::collections::BTreeMap;

use base64::Engine;
use k8s_openapi::api::core::v1::KeyToPath;
use serde_json::Value;

use super::VolumeError;
use super::atomic_writer::{File, Payload};

pub struct Options<'a> {
    pub name: &'a str,
    pub items: Option<&'a [KeyToPath]>,
    pub mode: u32,
    pub optional: bool,
}

/// `map` is `None` when the object does not exist.
pub fn payload(map: Option<&Value>, options: &Options) -> Result<Payload, VolumeError> {
    let Some(map) = map else {
        return if options.optional { Ok(Payload::new()) } else { Err(VolumeError::NoConfigMap(options.name.into())) };
    };
    select(data(map), options, "config")
}

fn data(map: &Value) -> BTreeMap<String, Vec<u8>> {
    let text = map["data"].as_object().into_iter().flatten();
    let text = text.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.as_bytes().to_vec())));
    text.chain(decoded(&map["binaryData"])).collect()
}

pub fn decoded(data: &Value) -> impl Iterator<Item = (String, Vec<u8>)> {
    data.as_object().into_iter().flatten().filter_map(|(k, v)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(v.as_str()?).ok()?;
        Some((k.clone(), bytes))
    })
}

/// All keys, or the items asked for at their paths.
pub fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    options: &Options,
    kind: &'static str,
) -> Result<Payload, VolumeError> {
    let file = |data, mode| File { data, mode, uid: None };
    let Some(items) = options.items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, bytes)| (key, file(bytes, options.mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        let mode = item.mode.map_or(options.mode, |m| m as u32 & 0o777);
        match data.get_mut(&item.key) {
            Some(bytes) => {
                payload.insert(item.path.clone(), file(bytes.clone(), mode));
            }
            None if options.optional => {}
            None => return Err(VolumeError::NoKey { kind, key: item.key.clone() }),
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(items: &str, optional: bool) -> Result<String, String> {
        let map = json!({"data": {"a": "1"}, "binaryData": {"b": "//8="}});
        let items: Option<Vec<KeyToPath>> = serde_yaml::from_str(items).expect("items");
        let options = Options { name: "m", items: items.as_deref(), mode: 0o644, optional };
        let payload = payload(Some(&map), &options).map_err(|e| e.to_string())?;
        Ok(payload.iter().map(|(p, f)| format!("{p}:{:o}:{:?}", f.mode, f.data)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_key_is_a_file_unless_items_are_named() {
        assert_eq!(check("null", false), Ok("a:644:[49] b:644:[255, 255]".into()));
        assert_eq!(check("[{key: a, path: x/y, mode: 256}]", false), Ok("x/y:400:[49]".into()));
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        assert_eq!(check("[{key: z, path: z}]", false), Err("references non-existent config key: z".into()));
        assert_eq!(check("[{key: z, path: z}]", true), Ok(String::new()));
    }
}
