//! Argus's cost as ratios over the floor for the same work, both measured in this run, interleaved. Prints a table and writes `argus-bench.json` into the target
//! directory. Never a test: machines are noisy. Arguments select rows by a part of their name.
//!
//! Layout: [`row`] what a row is and how runs are taken; [`alloc`] counts allocations; [`accept`] the caller's side at its median, [`tail`] at its worst;
//! [`durable`] waiting for the disk; [`store`] sustained writing and verification; [`recovery`] after a kill; [`heap`]; [`layer`] the `tracing` layer;
//! [`wrapper`] the OpenTelemetry wrapper and its spans; [`beside`] what others do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod alloc;
mod beside;
mod durable;
mod heap;
mod layer;
mod recovery;
mod row;
mod store;
mod tail;
mod wrapper;

type Bench = fn() -> row::Row;

const BENCHES: &[(&str, Bench)] = &[
    ("filtered_call", accept::filtered),
    ("disabled_logger", accept::disabled),
    ("log_accept_p50", accept::log_memory),
    ("log_accept_journal_p50", accept::log_journal),
    ("log_accept_allocations", accept::allocations_memory),
    ("log_accept_journal_allocations", accept::allocations_journal),
    ("file_watch_journal_p50", accept::file_watch),
    ("config_change_journal_p50", accept::config_change),
    ("wake_writer_p50", tail::wake),
    ("paced_8_threads_p99", tail::paced),
    ("full_speed_worst", tail::worst),
    ("full_speed_p999", tail::p999),
    ("log_durable_1", durable::one),
    ("log_durable_8", durable::eight),
    ("log_durable_64", durable::sixty_four),
    ("sustained_sqlite", store::sustained),
    ("verify", store::verify),
    ("recovery", recovery::recovery),
    ("heap_at_rest", heap::at_rest),
    ("heap_stalled", heap::stalled),
    ("layer_foreign_event", layer::foreign_event),
    ("layer_disabled_event", layer::disabled),
    ("layer_disabled_event_filtered", layer::disabled_filtered),
    ("layer_disabled_span", layer::span),
    ("layer_disabled_span_filtered", layer::span_filtered),
    ("layer_audit_event", layer::audit_over_log),
    ("beside_layer_json_non_blocking", layer::audit_beside_json),
    ("wrapper_without_tracer_added", wrapper::without_tracer),
    ("wrapper_with_tracer_added", wrapper::with_tracer),
    ("wrapper_without_tracer_bare", wrapper::without_tracer_over_nothing),
    ("wrapper_with_tracer_bare", wrapper::with_tracer_over_nothing),
    ("wrapper_allocations", wrapper::allocations),
    ("wrapper_span", wrapper::span),
    ("metrics_follow", wrapper::follow),
    ("beside_tracing_json_non_blocking", beside::tracing_json),
    ("beside_mutex_append", beside::mutex_append),
];

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    if recovery::is_child(&only) {
        return;
    }
    let mut rows = Vec::new();
    for (name, bench) in BENCHES {
        if only.is_empty() || only.iter().any(|o| name.contains(o.as_str())) {
            let row = row::Row { name, ..bench() };
            println!("{row}");
            rows.push(row);
        }
    }
    println!("\n{}", row::table(&rows));
    match row::write(&rows) {
        Ok(path) => println!("written to {}", path.display()),
        Err(e) => eprintln!("cannot write the JSON: {e}"),
    }
}
