import Basics

/// Bounds retries to a share of the requests, so that a failing backend is not buried under second tries (Finagle's budget).
///
/// A window of ten one-second buckets counts requests and retries; a retry is allowed while
/// `retries < share × requests + minimum × 10`, compared with `<`. O(1), no allocation.
public struct RetryBudget: Sendable {
    /// The share of the requests that may be retries, 0…1.
    public let share: Double
    /// Retries a second that are allowed whatever the traffic, so that a quiet service can retry at all.
    public let minimum: Int
    private var requests = Window()
    private var retries = Window()

    public init(share: Double, minimum: Int = 10) {
        self.share = share
        self.minimum = minimum
    }

    private struct Window: Sendable {
        var buckets: (Int, Int, Int, Int, Int, Int, Int, Int, Int, Int) = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        var total = 0
        var second: Int64 = 0

        mutating func advance(to now: Int64) {
            if now - second >= 10 {
                self = Window()
                second = now
                return
            }
            while second < now {
                second += 1
                update { total, bucket in
                    total -= bucket
                    bucket = 0
                }
            }
        }

        mutating func add() {
            update { total, bucket in
                total += 1
                bucket += 1
            }
        }

        private mutating func update(_ body: (inout Int, inout Int) -> Void) {
            let place = Int(second % 10)
            withUnsafeMutableBytes(of: &buckets) { raw in
                body(&total, &raw.bindMemory(to: Int.self)[place])
            }
        }
    }

    public mutating func requestArrived(_ now: MonotonicTime) {
        requests.advance(to: now.nanoseconds / 1_000_000_000)
        requests.add()
    }

    /// Takes one retry out of the budget, if it has one.
    public mutating func tryRetry(_ now: MonotonicTime) -> Bool {
        let second = now.nanoseconds / 1_000_000_000
        requests.advance(to: second)
        retries.advance(to: second)
        guard Double(retries.total) < share * Double(requests.total) + Double(minimum * 10) else { return false }
        retries.add()
        return true
    }

    public var inputs: [DecisionRecord.Input] {
        [
            .init("requests_10s", requests.total), .init("retries_10s", retries.total),
            .init("budget", "\(Int(clamped: share * 100))% + \(minimum)/s"),
        ]
    }
}
