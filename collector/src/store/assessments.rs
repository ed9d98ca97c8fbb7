use axum::http::StatusCode;
use durable_spans_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{
    assessment::{Assessment, Listing, NewAssessment, Said},
    refusal::Refusal,
    store::{Store, write},
};

const ROOT: &str = "
    SELECT id FROM span
    WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?) AND parent_id IS NULL
    ORDER BY start_ns, rowid LIMIT 1
";

impl Store {
    /// Keeps a new assessment, and answers with it.
    pub(crate) fn assess(&self, new: NewAssessment, account_id: &str) -> Result<String, Refusal> {
        new.check_ids()?;
        self.writer.alone(|writer| {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let span_id = assessed_span(&transaction, &new)?;
            let assessment = new.of_span(span_id, account_id, now())?;
            if assessment.is_overwrite() {
                check_only_overwrite(&transaction, &assessment)?;
            }
            let body = json(&assessment)?;
            transaction.execute(
                "INSERT INTO assessment (id, trace_id, span_id, type, body) VALUES (?, ?, ?, ?, ?)",
                params![
                    assessment.assessment_id,
                    assessment.trace_id,
                    assessment.span_id,
                    assessment.said.kind(),
                    body
                ],
            )?;
            transaction.commit()?;
            Ok(body)
        })
    }

    pub(crate) fn assessment(&self, id: &str) -> Result<String, Refusal> {
        self.read(|reader| find(reader, id))
    }

    /// Changes what an assessment says, and answers with it.
    pub(crate) fn reassess(&self, id: &str, said: Said) -> Result<String, Refusal> {
        self.writer.alone(|writer| {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let stored = find(&transaction, id)?;
            let mut assessment: Assessment =
                serde_json::from_str(&stored).map_err(Refusal::corrupt)?;
            assessment.update(said, now())?;
            if assessment.is_overwrite() {
                check_only_overwrite(&transaction, &assessment)?;
            }
            let body = json(&assessment)?;
            transaction.execute(
                "UPDATE assessment SET type = ?, body = ? WHERE id = ?",
                params![assessment.said.kind(), body, id],
            )?;
            transaction.commit()?;
            Ok(body)
        })
    }

    /// The assessments of a span or trace, in the order in which they were made.
    pub(crate) fn assessments(&self, listing: &Listing) -> Result<Vec<String>, Refusal> {
        let sql = format!(
            "SELECT body FROM assessment WHERE {} = ? AND type = ifnull(?, type) ORDER BY rowid",
            listing.column
        );
        let reader = self.readers.take();
        let mut query = reader.prepare_cached(&sql)?;
        let bodies = query.query_map((&listing.id, &listing.assessment_type), |row| row.get(0))?;
        Ok(bodies.collect::<Result<_, _>>()?)
    }

    pub(crate) fn forget_assessment(&self, id: &str) -> Result<(), Refusal> {
        let delete = "DELETE FROM assessment WHERE id = ?";
        match self.writer.alone(|writer| writer.execute(delete, [id]))? {
            0 => Err(Refusal::not_found("assessment")),
            _ => Ok(()),
        }
    }
}

fn find(connection: &Connection, id: &str) -> Result<String, Refusal> {
    let mut query = connection.prepare_cached("SELECT body FROM assessment WHERE id = ?")?;
    query
        .query_row([id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Refusal::not_found("assessment"))
}

fn assessed_span(connection: &Connection, new: &NewAssessment) -> Result<String, Refusal> {
    let found = match &new.span_id {
        Some(span_id) => connection
            .prepare_cached(write::ID)?
            .query_row([&new.trace_id, span_id], |row| row.get(0))
            .optional()?,
        None => connection
            .prepare_cached(ROOT)?
            .query_row([&new.trace_id], |row| row.get(0))
            .optional()?,
    };
    found.ok_or_else(|| {
        let what = if new.span_id.is_some() { "such span" } else { "root span" };
        Refusal::new(StatusCode::NOT_FOUND, format!("the trace has no {what}"))
    })
}

fn check_only_overwrite(connection: &Connection, new: &Assessment) -> Result<(), Refusal> {
    let mut other = connection.prepare_cached(
        "SELECT 1 FROM assessment
         WHERE trace_id = ? AND span_id = ? AND type = 'overwrite' AND id <> ?",
    )?;
    if other.exists([&new.trace_id, &new.span_id, &new.assessment_id])? {
        let detail = "the span has an overwrite already: update or delete that one";
        return Err(Refusal::new(StatusCode::CONFLICT, detail));
    }
    Ok(())
}

fn json(assessment: &Assessment) -> Result<String, Refusal> {
    serde_json::to_string(assessment).map_err(Refusal::corrupt)
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
