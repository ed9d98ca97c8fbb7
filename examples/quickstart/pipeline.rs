//! The workflows: a parent that fans out, a child for each group of files.

use std::time::Duration;

use durable_spans::{SpanType, WorkflowSpans};
use serde::{Deserialize, Serialize};
use temporalio_common::RetryPolicy;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, ContinueAsNewOptions, WorkflowContext, WorkflowResult,
    workflows::join_all,
};

use crate::{
    activities::{Reading, TextWork},
    files::Group,
    text::{self, Term},
};

/// What the next run of the pipeline does.
#[derive(Serialize, Deserialize)]
pub(crate) enum Stage {
    Read(Vec<Group>),
    Report(Findings),
}

/// What is known of one group of files.
#[derive(Serialize, Deserialize)]
pub(crate) struct GroupFindings {
    name: String,
    files: usize,
    words: u64,
    terms: Vec<Term>,
    summary: Vec<String>,
    skipped: Vec<String>,
}

/// What is known of all files.
#[derive(Serialize, Deserialize)]
pub(crate) struct Findings {
    terms: Vec<Term>,
    groups: Vec<GroupFindings>,
}

/// Reads all groups, merges what was found, and continues as a new run that reports it.
#[workflow]
#[derive(Default)]
pub(crate) struct Digest;

#[workflow_methods]
impl Digest {
    #[run(name = "Digest")]
    pub(crate) async fn run(
        ctx: &mut WorkflowContext<Self>,
        stage: Stage,
    ) -> WorkflowResult<String> {
        let groups = match stage {
            Stage::Read(groups) => groups,
            Stage::Report(findings) => {
                let report = ctx.span("report").span_type(SpanType::TextOutput).try_scope(async {
                    ctx.execute_activity(TextWork::write_report, findings, patiently()).await
                });
                return Ok(report.await?);
            }
        };
        let fan_out = ctx.span("fan out").span_type(SpanType::MapReduce);
        let groups = fan_out
            .input("groups", groups.len())
            .try_scope(async {
                let children = groups.into_iter().map(|group| digest_group(ctx, group));
                join_all(children).await.into_iter().collect::<WorkflowResult<Vec<_>>>()
            })
            .await?;
        let merge = ctx.span("merge").span_type(SpanType::DataManipulation);
        let terms = merge.in_scope(|span| {
            let terms = text::merge(groups.iter().map(|group| group.terms.as_slice()));
            span.output("terms", terms.iter().map(|term| &term.word).collect::<Vec<_>>());
            terms
        });
        let next = Stage::Report(Findings { terms, groups });
        match ctx.continue_as_new(next, ContinueAsNewOptions::default())? {}
    }
}

async fn digest_group(
    ctx: &WorkflowContext<Digest>,
    group: Group,
) -> WorkflowResult<GroupFindings> {
    let workflow_id = format!("{}/{}", ctx.workflow_id(), group.name);
    let options = ChildWorkflowOptions::workflow_id(workflow_id);
    let span = ctx.span(format!("folder {}", group.name)).input("files", &group.files);
    let digest = span.try_scope(async {
        let child = ctx.start_child_workflow(DigestGroup::run, group, options).await?;
        WorkflowResult::Ok(child.result().await?)
    });
    digest.await
}

/// Reads, ranks and summarises the files of one group.
#[workflow]
#[derive(Default)]
pub(crate) struct DigestGroup;

#[workflow_methods]
impl DigestGroup {
    #[run(name = "DigestGroup")]
    pub(crate) async fn run(
        ctx: &mut WorkflowContext<Self>,
        group: Group,
    ) -> WorkflowResult<GroupFindings> {
        let read = ctx.span("read").span_type(SpanType::DocumentInput).input("group", &group.name);
        let readings = read.try_scope(async {
            let files = group.files.iter().cloned();
            let readings =
                files.map(|file| ctx.execute_activity(TextWork::read_terms, file, patiently()));
            join_all(readings).await.into_iter().collect::<Result<Vec<_>, _>>()
        });
        let readings = readings.await?;

        let mut skipped = Vec::new();
        let documents: Vec<_> = ctx.span("keep texts").in_scope(|span| {
            let documents = readings.into_iter().filter_map(|reading| match reading {
                Reading::Read(document) => Some(document),
                Reading::Skipped(note) => {
                    skipped.push(note);
                    None
                }
            });
            let documents = documents.collect::<Vec<_>>();
            span.output("read", documents.len());
            span.output("skipped", skipped.len());
            documents
        });
        let (files, words) = (documents.len(), documents.iter().map(|d| d.words).sum());

        let rank = ctx.span("rank").span_type(SpanType::DataManipulation);
        let terms = rank.try_scope(async {
            ctx.execute_activity(TextWork::rank_terms, documents, patiently()).await
        });
        let terms = terms.await?;

        ctx.current_span().output("files", files);
        let summarise = ctx.span("summarise").span_type(SpanType::Custom);
        let name = group.name.clone();
        let summary = summarise.try_scope(async {
            let input = (group, terms.clone());
            ctx.execute_activity(TextWork::summarise, input, patiently()).await
        });
        Ok(GroupFindings { name, files, words, summary: summary.await?, terms, skipped })
    }
}

/// A few attempts, a moment apart.
fn patiently() -> ActivityOptions {
    let mut retry = RetryPolicy::default();
    retry.set_initial_interval(Duration::from_millis(200)).set_maximum_attempts(5);
    ActivityOptions::with_start_to_close_timeout(Duration::from_secs(30))
        .retry_policy(retry)
        .build()
}

impl Findings {
    pub(crate) fn report(&self) -> String {
        let files: usize = self.groups.iter().map(|group| group.files).sum();
        let words: u64 = self.groups.iter().map(|group| group.words).sum();
        let mut report = format!("{words} words in {files} files");
        let mut line = |line: String| report.extend(["\n", &text::printable(&line)]);
        if !self.terms.is_empty() {
            line(format!("top terms: {}", listed(&self.terms)));
        }
        for group in self.groups.iter().filter(|group| group.files > 0) {
            let best = &group.terms[..group.terms.len().min(4)];
            line(format!("  {}: {}", group.name, listed(best)));
            group.summary.iter().for_each(|sentence| line(format!("    “{sentence}”")));
        }
        for note in self.groups.iter().flat_map(|group| &group.skipped) {
            line(format!("skipped {note}"));
        }
        report
    }
}

fn listed(terms: &[Term]) -> String {
    terms.iter().map(|term| term.word.as_str()).collect::<Vec<_>>().join(", ")
}
