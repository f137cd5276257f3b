//! `ingest`: documents out, verdicts back.
//!
//! Documents are as large as a batch of everything else, so one call takes as many as memory and answer can hold, and a
//! batch may take several calls. Verdicts are index-aligned, so no caller sees that.

use std::sync::Arc;

use serde_json::Value;
use weir_default_policy::rules::Settings;
use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::Interface;
use crate::bindings::ingest;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::contract::Contract;
use crate::convert::{UuidTexts, check_length};
use crate::decision::Verdict;
use crate::instance::Warm;
use crate::module::Module;
use crate::record::{self, to_id};
use crate::subject::{Asked, Subject};
use weir_core::config::PolicyConfig;
use weir_core::model::{Document, Id, Violation};

/// What a document counts for in a call at least, in bytes: violations of the shortest take some, too.
const DOCUMENT_BYTES_MIN: usize = 1 << 10;
/// Documents of more bytes than this are judged where a thread may be busy for some milliseconds.
const QUICK_BYTES_MAX: usize = 32 << 10;
/// Bytes of a document that weigh, while they wait to be observed, as much as one decision of another kind.
const DECISION_BYTES: usize = 256;
/// Violations of one document that are kept.
const VIOLATIONS_MAX: usize = 100;
/// Bytes of a violation's path that are kept.
const PATH_BYTES_MAX: usize = 500;
/// Bytes of a violation's message that are kept.
const MESSAGE_BYTES_MAX: usize = 1_000;

impl Subject for Document {
    const INTERFACE: Interface = Interface::Ingest;
    const HAS_CONTRACT: bool = true;
    type Rule = Verdict;

    fn target(&self) -> &Id {
        &self.id
    }

    fn fitting(config: &PolicyConfig, batch: &[Self]) -> usize {
        let bytes_max = config.documents_bytes_max();
        let mut bytes = 0_usize;
        let fits = |document: &&Self| {
            bytes += document.body.len().max(DOCUMENT_BYTES_MIN);
            bytes <= bytes_max
        };
        // The configuration allows none that does not fit alone.
        batch.iter().take_while(fits).count().max(1)
    }

    fn is_quick(batch: &[Self]) -> bool {
        batch.iter().map(|document| document.body.len()).sum::<usize>() <= QUICK_BYTES_MAX
    }

    fn weight(batch: &[Self]) -> usize {
        batch.iter().map(|document| 1 + document.body.len() / DECISION_BYTES).sum()
    }

    fn ask(module: &Module, role: Role, asked: Asked<'_, Self>) -> Outcome<Vec<Verdict>> {
        let Asked { kind, now_ms, batch, contract, .. } = asked;
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|document| [&document.id, &document.actor]));
        let documents = documents(batch, &mut texts);
        let call = |warm: &mut Warm| match &warm.exports.ingest {
            Some(ingest) => ingest.call_validate(&mut warm.store, kind, now_ms, &documents),
            None => Err(not_exported()),
        };
        module.run(role, Called { interface: Self::INTERFACE, function: "validate", kind }, 1, call, |verdicts| {
            check_verdicts(batch, verdicts, contract)
        })
    }

    fn builtin(_settings: &Settings, _now_ms: u64, batch: &[Self]) -> Vec<Verdict> {
        vec![Ok(None); batch.len()]
    }

    fn record(kind: &str, now_ms: u64, batch: &[Self]) -> Call {
        let document = |document: &Document| vectors::Document {
            id: record::id(&document.id),
            actor: record::id(&document.actor),
            body: fields(&document.body),
        };
        let batch = batch.iter().map(document).collect();
        Call::IngestValidate(vectors::IngestValidate { kind: kind.to_owned(), now_ms, batch })
    }

    fn record_rules(rules: &[Verdict]) -> Answer {
        let verdict = |verdict: &Verdict| match verdict {
            Ok(normalised) => vectors::Verdict::Ok(normalised.as_deref().map(fields)),
            Err(violations) => vectors::Verdict::Violations(violations.clone()),
        };
        Answer::Documents(rules.iter().map(verdict).collect())
    }
}

/// A body that was found to be a JSON object.
fn fields(body: &str) -> vectors::Fields {
    serde_json::from_str(body).unwrap_or_default()
}

/// A recorded document.
pub(crate) fn to_document(document: &vectors::Document) -> Document {
    let body = Value::Object(document.body.clone()).to_string();
    Document { id: to_id(&document.id), actor: to_id(&document.actor), body: body.into() }
}

/// A batch as the guest gets it. `texts` is [`UuidTexts::for_ids`] of its ids.
fn documents<'a>(batch: &'a [Document], texts: &'a mut UuidTexts) -> Vec<ingest::Document<'a>> {
    let mut writer = texts.writer();
    let document = |document: &'a Document| ingest::Document {
        id: writer.id(&document.id),
        actor: writer.id(&document.actor),
        body: &document.body,
    };
    batch.iter().map(document).collect()
}

/// What a guest says of a document.
type WireVerdict = Result<Option<String>, Vec<ingest::Violation>>;

/// The answer to a batch, or how it breaks the contract: that of the interface, and that of the kind.
fn check_verdicts(
    batch: &[Document],
    verdicts: Vec<WireVerdict>,
    contract: Option<&dyn Contract>,
) -> Result<Vec<Verdict>, String> {
    check_length(batch.len(), "documents", verdicts.len(), "verdicts")?;
    let normalised = |index: usize, text: String| -> Result<Verdict, String> {
        let fields = serde_json::from_str::<vectors::Fields>(&text)
            .map_err(|error| format!("document {index} is normalised to what is no JSON object: {error}"))?;
        let broken = |problem: String| format!("document {index} is normalised to what is none of its kind: {problem}");
        if let Some(contract) = contract {
            contract.check_document(&batch[index].id, &Value::Object(fields)).map_err(broken)?;
            if let Err(reason) = contract.check_size(text.len()) {
                return Ok(Err(vec![Violation { path: String::new(), message: format!("once normalised, {reason}") }]));
            }
        }
        Ok(Ok(Some(Arc::from(text))))
    };
    let verdict = |(index, verdict): (usize, WireVerdict)| match verdict {
        Ok(None) => Ok(Ok(None)),
        Ok(Some(text)) => normalised(index, text),
        Err(violations) if violations.is_empty() => Err(format!("document {index} is refused without a violation")),
        Err(violations) => Ok(Err(violations.into_iter().take(VIOLATIONS_MAX).map(cut).collect())),
    };
    verdicts.into_iter().enumerate().map(verdict).collect()
}

fn cut(violation: ingest::Violation) -> Violation {
    let ingest::Violation { mut path, mut message } = violation;
    path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    Violation { path, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: usize) -> Document {
        Document { id: Id::Int(1), actor: Id::Int(2), body: "x".repeat(bytes).into() }
    }

    #[test]
    fn a_call_takes_what_it_can_hand_back_and_always_one_document() {
        let fitting = |transfer_bytes_max: usize, sizes: &[usize]| {
            let batch: Vec<Document> = sizes.iter().map(|bytes| document(*bytes)).collect();
            Document::fitting(&PolicyConfig { transfer_bytes_max, ..PolicyConfig::default() }, &batch)
        };
        let kib = 1 << 10;
        assert_eq!(fitting(1 << 20, &[64 * kib; 5]), 4);
        assert_eq!(fitting(1 << 20, &[2; 1_000]), 256);
        assert_eq!(fitting(1 << 20, &[2; 100]), 100);
        assert_eq!(fitting(1 << 20, &[256 * kib, 2]), 1);
        assert_eq!(fitting(1 << 20, &[300 * kib, 2]), 1);
        assert_eq!(fitting(1 << 20, &[2, 256 * kib]), 1);
        assert_eq!(fitting(1, &[2, 2]), 1);
        assert_eq!(Document::weight(&[document(2), document(64 * kib)]), 1 + 257);
    }

    #[test]
    fn violations_are_cut_where_a_character_ends() {
        let violation = ingest::Violation { path: "é".repeat(400), message: format!("a{}", "é".repeat(600)) };
        let one = [document(2)];
        let verdicts = check_verdicts(&one, vec![Err(vec![violation; 101])], None).unwrap();
        let Err(kept) = &verdicts[0] else { panic!("{verdicts:?}") };
        assert_eq!((kept.len(), kept[0].path.len(), kept[0].message.len()), (100, 500, 999));
        let short = ingest::Violation { path: String::new(), message: "m".into() };
        let verdicts = check_verdicts(&one, vec![Err(vec![short])], None).unwrap();
        assert_eq!(verdicts, [Err(vec![Violation { path: String::new(), message: "m".into() }])]);
    }

    #[test]
    fn what_is_normalised_is_a_json_object() {
        let check = |text: &str| check_verdicts(&[document(2)], vec![Ok(Some(text.to_owned()))], None);
        assert_eq!(check(" {\"a\": [1, null]} "), Ok(vec![Ok(Some(" {\"a\": [1, null]} ".into()))]));
        for wrong in
            ["", "[]", "1", "null", "\"{}\"", "{", "{} {}", "{\"a\":1,}", "{\"a\":\"\\ud800\"}", "{\"a\":1e999}"]
        {
            assert!(
                check(wrong).unwrap_err().contains("document 0 is normalised to what is no JSON object"),
                "{wrong}"
            );
        }
    }
}
