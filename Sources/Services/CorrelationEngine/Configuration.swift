import Basics
import Observability
import Redis

/// What the engine is told by its environment (document 000's names). Every value is checked once, here; a wrong one names
/// its variable.
public struct Configuration: Sendable {
    public var host = "127.0.0.1"
    public var port: UInt16 = 8080
    /// A Unix socket at which it listens as well; nil: at none.
    public var socket: String?
    public var instanceID = "1"
    public var usesRedis = false
    public var redis: RedisURL?
    /// As given, without its password: for the log.
    public var redisLabel = ""
    public var redisConnections = 50
    /// Replicas that must have a record before it is acknowledged, and the layout's shards (`CorrelationKeys`).
    public var redisConfirmations = 0
    public var shards = 1
    public var keyPrefix = "corr:"
    /// One lifetime for a correlation and its place in the index, from its last record on (F1.4).
    public var lifetime = Duration.seconds(3600)
    /// Records older than this are refused.
    public var maximumAge = Duration.seconds(24 * 3600)
    /// Records without a trace id are joined when they fall into one window of this length.
    public var window = Duration.seconds(60)
    /// Records accepted and not yet stored.
    public var queueCapacity = 10_000
    public var logLevel = Logger.Level.info
    public var logFormat = Logger.Format.text
    public var deployment = "dev"
    /// When a correlation is complete.
    public var completion = CompletionRule()
    /// What the in-memory form may hold, in bytes.
    public var memory = 512 << 20
    public var loki: ExportURL?
    public var tempo: ExportURL?
    public var exports = ExportLimits()

    public init() {}

    public var targets: [ExportTarget] { (loki == nil ? [] : [.loki]) + (tempo == nil ? [] : [.tempo]) }
    func url(_ target: ExportTarget) -> ExportURL? { target == .loki ? loki : tempo }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public init(environment: (String) -> String?) throws(Failure) {
        func whole(_ name: String, _ range: ClosedRange<Int>, _ fallback: Int) throws(Failure) -> Int {
            guard let text = environment(name) else { return fallback }
            guard let value = Int(text), range.contains(value) else {
                throw Failure(description: "\(name): '\(text)' is not a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        host = environment("HOST") ?? host
        port = UInt16(try whole("PORT", 0...65535, 8080))
        socket = try Configuration.socket(environment("SOCKET") ?? "")
        instanceID = environment("INSTANCE_ID") ?? instanceID
        // It is a part of names in the store and of labels.
        guard (1...64).contains(instanceID.utf8.count),
            instanceID.utf8.allSatisfy({ ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || [45, 46, 95].contains($0) })
        else {
            throw Failure(description: "INSTANCE_ID: '\(instanceID)' is not 1 to 64 letters, digits, '-', '_' and '.'")
        }
        switch environment("USE_REDIS_STATE")?.lowercased() {
        case nil, "false", "0", "no": usesRedis = false
        case "true", "1", "yes": usesRedis = true
        case let other?: throw Failure(description: "USE_REDIS_STATE: '\(other)' is neither true nor false")
        }
        try readRedis(environment, whole)
        redisConnections = try whole("REDIS_MAX_CONNECTIONS", 1...10_000, redisConnections)
        keyPrefix = environment("REDIS_KEY_PREFIX") ?? keyPrefix
        lifetime = .seconds(try whole("CORRELATION_TTL_SECONDS", 1...31_536_000, 3600))
        maximumAge = .seconds(try whole("MAX_CORRELATION_AGE_HOURS", 1...87_600, 24) * 3600)
        window = .seconds(try whole("CORRELATION_WINDOW_SECONDS", 1...86_400, 60))
        queueCapacity = try whole("CORRELATION_QUEUE_CAPACITY", 1...1_000_000, queueCapacity)
        if let text = environment("LOG_LEVEL") {
            guard let level = Logger.Level(name: text) else {
                throw Failure(description: "LOG_LEVEL: '\(text)' is none of debug, info, warn, error")
            }
            logLevel = level
        }
        if let text = environment("LOG_FORMAT") {
            guard let format = Logger.Format(rawValue: text.lowercased()) else {
                throw Failure(description: "LOG_FORMAT: '\(text)' is neither text nor json")
            }
            logFormat = format
        }
        deployment = environment("DEPLOYMENT_ENV") ?? deployment
        memory = try whole("CORRELATION_MEMORY_MB", 1...1_048_576, 512) << 20
        exports.batches = try whole("EXPORT_QUEUE_CAPACITY", 1...1_000_000, exports.batches)
        exports.lease = .seconds(try whole("EXPORT_LEASE_SECONDS", 1...3600, 60))
        func seconds(_ name: String, _ fallback: Double) throws(Failure) -> Duration {
            guard let text = environment(name) else { return Duration(clampedSeconds: fallback) }
            guard let value = Double(text), value >= 0, value <= 86_400 else {
                throw Failure(description: "\(name): '\(text)' is not a number of seconds from 0 to 86400")
            }
            return Duration(clampedSeconds: value)
        }
        completion.quiet = try seconds("CORRELATION_QUIET_SECONDS", 5)
        switch environment("CORRELATION_COMPLETE")?.lowercased() {
        case nil, "quiet": break
        case "root": completion.afterRoot = try seconds("CORRELATION_ROOT_SECONDS", 1)
        case let other?: throw Failure(description: "CORRELATION_COMPLETE: '\(other)' is neither quiet nor root")
        }
        func target(_ name: String, _ path: String) throws(Failure) -> ExportURL? {
            guard let text = environment(name), !text.isEmpty else { return nil }
            guard let url = ExportURL(text, path: path) else {
                throw Failure(description: "\(name): is not of the form http://host[:port][/path]")
            }
            return url
        }
        loki = try target("LOKI_URL", LokiFormat.path)
        tempo = try target("TEMPO_URL", TempoFormat.path)
    }

    private static func socket(_ path: String) throws(Failure) -> String? {
        if path.isEmpty { return nil }
        guard path.hasPrefix("/"), path.utf8.count <= 107 else {
            throw Failure(description: "SOCKET: '\(path)' is no absolute path of at most 107 bytes, which is what a Unix socket can have")
        }
        return path
    }

    private mutating func readRedis(_ environment: (String) -> String?, _ whole: (String, ClosedRange<Int>, Int) throws(Failure) -> Int)
        throws(Failure)
    {
        if usesRedis {
            let url = environment("REDIS_URL") ?? "redis://127.0.0.1:6379"
            do throws(RedisURL.Failure) { redis = try RedisURL(url) } catch { throw Failure(description: error.description) }
            redisLabel = redis?.description ?? ""
        }
        // Where another master may follow, what was acknowledged must not die with the first.
        switch redis?.topology {
        case .cluster: (redisConfirmations, shards) = (1, CorrelationKeys.clusterShards)
        case .sentinel: redisConfirmations = 1
        case .single, nil: break
        }
        redisConfirmations = try whole("REDIS_WAIT_REPLICAS", 0...5, redisConfirmations)
        shards = try whole("CORRELATION_SHARDS", 1...256, shards)
    }
}
