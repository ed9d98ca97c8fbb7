//! Assessments: what people say about spans, as SGP keeps it.

use std::collections::BTreeMap;

use durable_spans_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{item::check_id, refusal::Refusal};

const TYPES: [&str; 6] = ["comment", "rating", "approval", "rubric", "metadata", "overwrite"];

/// Who made it: a collector knows no users.
const CREATOR: &str = "local";

/// An assessment as it is stored and answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Assessment {
    pub(crate) assessment_id: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    account_id: String,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    object: String,
    #[serde(flatten)]
    pub(crate) said: Said,
}

/// What is said about the span.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assessment_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rubric: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overwrite: Option<Map<String, Value>>,
}

/// The body of `POST /v5/span-assessments`.
#[derive(Debug, Deserialize)]
pub(crate) struct NewAssessment {
    pub(crate) trace_id: String,
    /// The root of the trace, if it is left out.
    pub(crate) span_id: Option<String>,
    #[serde(flatten)]
    pub(crate) said: Said,
}

/// Which assessments `GET /v5/span-assessments` lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// `trace_id` or `span_id`.
    pub(crate) column: &'static str,
    pub(crate) id: String,
    pub(crate) assessment_type: Option<String>,
}

pub(crate) fn check_assessment_type(field: impl Into<String>, name: &str) -> Result<(), Refusal> {
    if TYPES.contains(&name) {
        return Ok(());
    }
    let reason = "must be comment, rating, approval, rubric, metadata or overwrite";
    Err(Refusal::invalid(field, reason))
}

impl NewAssessment {
    /// The assessment of this span, made now.
    ///
    /// # Errors
    ///
    /// If it does not say what its type asks for, or says more.
    pub(crate) fn of_span(
        self,
        span_id: String,
        account_id: &str,
        now: Timestamp,
    ) -> Result<Assessment, Refusal> {
        self.said.check()?;
        Ok(Assessment {
            assessment_id: uuid::Uuid::new_v4().to_string(),
            trace_id: self.trace_id,
            span_id,
            account_id: account_id.to_owned(),
            created_by: CREATOR.to_owned(),
            created_at: now,
            updated_at: now,
            object: "span.assessment".to_owned(),
            said: self.said,
        })
    }

    pub(crate) fn check_ids(&self) -> Result<(), Refusal> {
        check_id("trace_id", &self.trace_id)?;
        self.span_id.as_ref().map_or(Ok(()), |id| check_id("span_id", id))
    }
}

impl Assessment {
    /// Says something else from now on, in the fields that are given.
    pub(crate) fn update(&mut self, said: Said, now: Timestamp) -> Result<(), Refusal> {
        let before = std::mem::take(&mut self.said);
        self.said = Said {
            assessment_type: said.assessment_type.or(before.assessment_type),
            comment: said.comment.or(before.comment),
            rating: said.rating.or(before.rating),
            approval: said.approval.or(before.approval),
            rubric: said.rubric.or(before.rubric),
            metadata: said.metadata.or(before.metadata),
            overwrite: said.overwrite.or(before.overwrite),
        };
        self.updated_at = now;
        self.said.check()
    }

    pub(crate) fn is_overwrite(&self) -> bool {
        self.said.kind() == "overwrite"
    }
}

impl Said {
    pub(crate) fn kind(&self) -> &str {
        self.assessment_type.as_deref().unwrap_or_default()
    }

    /// What the type asks for must be there and nothing else, but for a comment.
    fn check(&self) -> Result<(), Refusal> {
        if self.assessment_type.is_none() {
            return Err(Refusal::invalid("assessment_type", "is missing"));
        }
        check_assessment_type("assessment_type", self.kind())?;
        let given = [
            self.comment.is_some(),
            self.rating.is_some(),
            self.approval.is_some(),
            self.rubric.is_some(),
            self.metadata.is_some(),
            self.overwrite.is_some(),
        ];
        for (field, is_given) in TYPES.into_iter().zip(given) {
            if field == self.kind() && !is_given {
                return Err(Refusal::invalid(field, "is what this assessment_type needs"));
            }
            if field != self.kind() && field != "comment" && is_given {
                return Err(Refusal::invalid(field, "does not belong to this assessment_type"));
            }
        }
        if self.rating.is_some_and(|rating| !(1..=5).contains(&rating)) {
            return Err(Refusal::invalid("rating", "must be a whole number from 1 to 5"));
        }
        if self.approval.as_deref().is_some_and(|word| !["approved", "rejected"].contains(&word)) {
            return Err(Refusal::invalid("approval", "must be approved or rejected"));
        }
        Ok(())
    }
}

impl Listing {
    pub(crate) fn parse(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut found = None;
        let mut assessment_type = None;
        for (name, value) in query {
            let column = match &**name {
                "trace_id" => "trace_id",
                "span_id" => "span_id",
                "assessment_type" => {
                    check_assessment_type("assessment_type", value)?;
                    assessment_type = Some(value.clone());
                    continue;
                }
                _ => return Err(Refusal::invalid(name, "is no filter of assessments")),
            };
            if found.replace((column, value.clone())).is_some() {
                return Err(Self::one_id());
            }
        }
        let (column, id) = found.ok_or_else(Self::one_id)?;
        Ok(Self { column, id, assessment_type })
    }

    fn one_id() -> Refusal {
        let status = axum::http::StatusCode::BAD_REQUEST;
        Refusal::new(status, "give either span_id or trace_id as a query parameter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(said: Value) -> Result<(), String> {
        serde_json::from_value::<Said>(said).unwrap().check().map_err(|refusal| refusal.detail())
    }

    #[test]
    fn each_type_needs_its_field_and_allows_a_comment() {
        for (kind, value) in [
            ("comment", json!("good")),
            ("rating", json!(5)),
            ("approval", json!("rejected")),
            ("rubric", json!({"tone": "kind"})),
            ("metadata", json!({"k": [1]})),
            ("overwrite", json!({"answer": 42})),
        ] {
            assert_eq!(
                check(json!({"assessment_type": kind, kind: value, "comment": "c"})),
                Ok(())
            );
            let missing = check(json!({"assessment_type": kind})).unwrap_err();
            assert_eq!(missing, format!("{kind} is what this assessment_type needs"));
        }
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        for (said, field) in [
            (json!({"comment": "c"}), "assessment_type"),
            (json!({"assessment_type": "praise"}), "assessment_type"),
            (json!({"assessment_type": "rating", "rating": 0}), "rating"),
            (json!({"assessment_type": "rating", "rating": 6}), "rating"),
            (json!({"assessment_type": "approval", "approval": "yes"}), "approval"),
            (json!({"assessment_type": "rating", "rating": 3, "approval": "approved"}), "approval"),
        ] {
            let detail = check(said).unwrap_err();
            assert!(detail.starts_with(&format!("{field} ")), "{detail}");
        }
    }

    #[test]
    fn a_list_is_of_one_span_or_one_trace() {
        let parse = |query: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Listing::parse(&query.iter().map(own).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[("span_id", "s")]).unwrap().column, "span_id");
        assert_eq!(parse(&[]).unwrap_err().status(), 400);
        assert_eq!(parse(&[("span_id", "s"), ("trace_id", "t")]).unwrap_err().status(), 400);
        assert_eq!(parse(&[("trace_id", "t"), ("tpyo", "x")]).unwrap_err().status(), 422);
    }
}
