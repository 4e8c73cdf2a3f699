//! The text of `/metrics`, in Prometheus' text format, which every scraper reads.

use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType,
};

use crate::metrics::catalog::{Kind, Metric};
use crate::places::reports::Times;

/// The metrics of a part, sorted by [`Metric`] when the text is made.
#[derive(Debug, Default)]
pub struct Page(Vec<(Metric, MetricFamily)>);

impl Page {
    /// Adds a metric without a label.
    pub fn one(&mut self, metric: Metric, value: f64) {
        self.sample(metric, &[], value);
    }

    /// Adds a metric with a sample for each value of its one label.
    pub fn each<'a>(&mut self, metric: Metric, samples: impl IntoIterator<Item = (&'a str, u64)>) {
        for (label, value) in samples {
            self.sample(metric, &[label], count(value));
        }
    }

    /// Adds a sample; `labels` are the values of [`Metric::labels`], in that order.
    pub fn sample(&mut self, metric: Metric, labels: &[&str], value: f64) {
        let mut sample = Sample::from_label(metric.labels().iter().zip(labels).map(pair).collect());
        if metric.kind() == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        self.add(metric, sample);
    }

    /// Adds a histogram.
    pub fn times(&mut self, metric: Metric, times: &Times) {
        let mut within = 0;
        let buckets = Times::BOUNDS.iter().enumerate().map(|(slot, bound)| {
            within += times.within.get(slot).copied().unwrap_or_default();
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(within);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count);
        histogram.set_sample_sum(seconds(times.sum));
        let mut sample = Sample::default();
        sample.set_histogram(histogram);
        self.add(metric, sample);
    }

    fn add(&mut self, metric: Metric, sample: Sample) {
        if let Some((_, family)) = self.0.iter_mut().find(|(known, _)| *known == metric) {
            family.mut_metric().push(sample);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name().to_owned());
        family.set_help(metric.help().to_owned());
        family.set_field_type(match metric.kind() {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(vec![sample]);
        self.0.push((metric, family));
    }

    /// The text of the page.
    pub fn text(mut self) -> Result<String, prometheus::Error> {
        self.0.sort_by_key(|(metric, _)| *metric);
        let families: Vec<MetricFamily> = self.0.into_iter().map(|(_, family)| family).collect();
        TextEncoder::new().encode_to_string(&families)
    }
}

fn pair((name, value): (&&str, &&str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name((*name).to_owned());
    pair.set_value((*value).to_owned());
    pair
}

/// A count as the format's number.
#[allow(clippy::cast_precision_loss)] // nothing here is counted beyond 2^53
pub fn count(value: u64) -> f64 {
    value as f64
}

/// Milliseconds as the format's unit, seconds.
pub fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_the_order_of_the_documentation() {
        let mut times = Times::default();
        for time in [7, 50, 51, 400_000] {
            times.add(time);
        }
        let mut page = Page::default();
        page.times(Metric::OverlapTime, &times);
        page.each(Metric::Checkpoints, [("Active", 2), ("Inactive", 0)]);
        page.one(Metric::ApiSilence, 1.25);
        page.one(Metric::Outages, 3.0);
        let expected = "\
# HELP pod_checkpointer_checkpoints Checkpoints on this node, by phase.
# TYPE pod_checkpointer_checkpoints gauge
pod_checkpointer_checkpoints{phase=\"Active\"} 2
pod_checkpointer_checkpoints{phase=\"Inactive\"} 0
# HELP pod_checkpointer_api_silence_seconds Time since the API server last answered the supervisor; 0 while it answers.
# TYPE pod_checkpointer_api_silence_seconds gauge
pod_checkpointer_api_silence_seconds 1.25
# HELP pod_checkpointer_outages_total Outages since boot in which at least one pod was activated.
# TYPE pod_checkpointer_outages_total counter
pod_checkpointer_outages_total 3
# HELP pod_checkpointer_overlap_seconds Time for which a pod and its twin both ran during the hand-over.
# TYPE pod_checkpointer_overlap_seconds histogram
pod_checkpointer_overlap_seconds_bucket{le=\"0.01\"} 1
pod_checkpointer_overlap_seconds_bucket{le=\"0.05\"} 2
pod_checkpointer_overlap_seconds_bucket{le=\"0.1\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"0.25\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"0.5\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"1\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"2.5\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"5\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"10\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"30\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"60\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"300\"} 3
pod_checkpointer_overlap_seconds_bucket{le=\"+Inf\"} 4
pod_checkpointer_overlap_seconds_sum 400.108
pod_checkpointer_overlap_seconds_count 4
";
        assert_eq!(page.text().unwrap(), expected);
    }
}
