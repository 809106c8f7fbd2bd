import JSONCoding

extension LoadReport {
    /// The report as JSON: everything that was measured, and the verdict. Latencies are in milliseconds; `corrected` says whether they
    /// count from when a request was due by a schedule that does not wait for answers.
    public func json(_ verdict: LoadVerdict, target: String) -> String {
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.member("load", name)
        json.member("target", target)
        json.member("model", isOpen ? (isClosed ? "open and closed" : "open") : "closed")
        json.member("corrected", isOpen && !isClosed)
        json.member("ended_early", endedEarly)
        json.member("seconds", Double(elapsed) / 1e9)
        json.member("sent", sent)
        json.member("ended", ended)
        json.member("errors", errors)
        json.member("error_share", errorShare)
        json.member("rate", rate)
        json.member("repeated", repeated)
        json.member("connections_made", connectionsMade)
        json.member("bytes_sent", bytesSent)
        json.member("bytes_received", bytesReceived)
        json.member("cpu_us_per_request", ended == 0 ? 0 : Double(processorTime) / 1000 / Double(ended))
        json.key("statuses")
        json.beginObject()
        for (status, count) in statuses.sorted(by: { $0.key < $1.key }) { json.member("\(status)", count) }
        json.endObject()
        json.key("failures")
        json.beginObject()
        for error in LoadError.allCases { json.member(error.rawValue, failures[error] ?? 0) }
        json.endObject()
        if let firstFailure { json.member("first_failure", firstFailure) }
        for (name, latencies) in [("response_ms", total.response), ("service_ms", service), ("delay_ms", delay)] {
            json.key(name)
            latencies.write(to: &json)
        }
        json.key("requests")
        json.beginArray()
        for (label, part) in zip(labels, parts) {
            json.beginObject()
            json.member("request", label)
            json.member("ended", part.ended)
            json.member("errors", part.errors)
            json.key("response_ms")
            part.response.write(to: &json)
            json.endObject()
        }
        json.endArray()
        write(verdict, to: &json)
        timeline(to: &json)
        json.endObject()
        return json.text
    }

    private func write(_ verdict: LoadVerdict, to json: inout JSONWriter) {
        json.member("holds", verdict.holds)
        if let unmeasured = verdict.unmeasured { json.member("unmeasured", unmeasured) }
        json.key("expectations")
        json.beginArray()
        for finding in verdict.findings {
            json.beginObject()
            json.member("expectation", finding.expectation.description)
            json.key("measured")
            if let measured = finding.measured {
                json.double(finding.expectation.metric.isLatency ? measured / 1e6 : measured)
            } else {
                json.null()
            }
            json.member("holds", finding.holds)
            json.member("sentence", finding.sentence)
            json.endObject()
        }
        json.endArray()
    }

    private func timeline(to json: inout JSONWriter) {
        json.key("timeline")
        json.beginArray()
        for second in seconds {
            json.beginObject()
            json.member("second", second.second)
            json.member("sent", second.sent)
            json.member("ended", second.ended)
            json.member("errors", second.errors)
            json.member("p50_ms", Double(second.p50) / 1e6)
            json.member("p95_ms", Double(second.p95) / 1e6)
            json.member("in_flight", second.inFlight)
            json.member("users", second.users)
            json.member("waiting", second.waiting)
            json.endObject()
        }
        json.endArray()
    }
}

extension LatencyDistribution {
    fileprivate func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("min", Double(least) / 1e6)
        json.member("mean", mean / 1e6)
        for metric in LoadExpectation.Metric.allCases {
            if let share = metric.share { json.member(metric.rawValue, Double(quantile(share)) / 1e6) }
        }
        json.member("max", Double(most) / 1e6)
        json.endObject()
    }
}
