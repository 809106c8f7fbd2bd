import Basics
import Observability
import Redis

/// What the engine is told by its environment (document 000's names). Every value is checked once, here; a wrong one names
/// its variable.
public struct Configuration: Sendable {
    public var host = "127.0.0.1"
    public var port: UInt16 = 8080
    public var instanceID = "1"
    public var usesRedis = false
    public var redis: RedisURL?
    /// As given, without its password: for the log.
    public var redisLabel = ""
    public var redisConnections = 50
    public var keyPrefix = "corr:"
    /// One lifetime for a correlation's value and its place in the index, from its last record on (F1.4).
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

    public init() {}

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
        instanceID = environment("INSTANCE_ID") ?? instanceID
        switch environment("USE_REDIS_STATE")?.lowercased() {
        case nil, "false", "0", "no": usesRedis = false
        case "true", "1", "yes": usesRedis = true
        case let other?: throw Failure(description: "USE_REDIS_STATE: '\(other)' is neither true nor false")
        }
        if usesRedis {
            let url = environment("REDIS_URL") ?? "redis://127.0.0.1:6379"
            do throws(RedisURL.Failure) { redis = try RedisURL(url) } catch { throw Failure(description: error.description) }
            redisLabel = redacted(url: url)
        }
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
    }
}
