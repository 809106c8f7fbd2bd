// swift-tools-version: 6.2
import PackageDescription

/// Every target of ours is made here, so that the strict settings stand in one place.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
]

/// A room of the house: its folder is `Sources/<floor>/<folder>`, where `folder` is its name unless it has another, and it may import only
/// what it names.
func room(_ name: String, in folder: String? = nil, on floor: String, uses: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: uses, path: "Sources/\(floor)/\(folder ?? name)", swiftSettings: strict)
}

func program(_ name: String, on floor: String, uses: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: uses, path: "Sources/\(floor)/\(name)", swiftSettings: strict)
}

func tests(_ name: String, uses: [Target.Dependency], exclude: [String] = []) -> Target {
    // Fixtures are read in place, by their path in the sources.
    .testTarget(name: name, dependencies: uses, path: "Tests/\(name)", exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "muster",
    products: [
        .executable(name: "muster", targets: ["muster"]),
        .executable(name: "correlation-engine", targets: ["correlation-engine"]),
        .library(name: "MusterHTTP", targets: ["HTTP"]),
    ],
    targets: [
        // System: C libraries and shims, no logic.
        .target(name: "CLinux", path: "Sources/System/CLinux", linkerSettings: [.linkedLibrary("resolv")]),
        // The admin port's page. Its files are read by the C compiler (`#embed`), which also sees when one of them has changed.
        .target(name: "CAdminPage", path: "Sources/System/CAdminPage", exclude: ["page"]),
        .target(
            name: "CSimdJSON", path: "Sources/System/CSimdJSON",
            linkerSettings: [.linkedLibrary("simdjson"), .linkedLibrary("stdc++")]),
        .systemLibrary(
            name: "CYAML", path: "Sources/System/CYAML", pkgConfig: "yaml-0.1",
            providers: [.apt(["libyaml-dev"])]),
        .systemLibrary(
            name: "COpenSSL", path: "Sources/System/COpenSSL", pkgConfig: "openssl",
            providers: [.apt(["libssl-dev"])]),
        // What is a macro in OpenSSL's headers.
        .target(
            name: "CTLS", path: "Sources/System/CTLS",
            linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
        .systemLibrary(
            name: "CXXHash", path: "Sources/System/CXXHash", pkgConfig: "libxxhash",
            providers: [.apt(["libxxhash-dev"])]),
        .systemLibrary(
            name: "CBrotli", path: "Sources/System/CBrotli", pkgConfig: "libbrotlienc",
            providers: [.apt(["libbrotli-dev"])]),
        .systemLibrary(
            name: "CZstd", path: "Sources/System/CZstd", pkgConfig: "libzstd",
            providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(
            name: "CZlib", path: "Sources/System/CZlib", pkgConfig: "zlib",
            providers: [.apt(["zlib1g-dev"])]),

        .systemLibrary(
            name: "CPCRE2", path: "Sources/System/CPCRE2", pkgConfig: "libpcre2-8",
            providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(
            name: "CNGHTTP2", path: "Sources/System/CNGHTTP2", pkgConfig: "libnghttp2",
            providers: [.apt(["libnghttp2-dev"])]),

        // PostgreSQL's own parser. Debian's package has no pkg-config file.
        .target(name: "CPGQuery", path: "Sources/System/CPGQuery", linkerSettings: [.linkedLibrary("pg_query")]),

        // Core
        room("Basics", on: "Core", uses: ["CLinux"]),
        room("JSONCoding", on: "Core", uses: ["Basics", "CSimdJSON"]),
        room("ProtobufCoding", on: "Core", uses: ["Basics", "JSONCoding"]),
        room("Compression", on: "Core", uses: ["CZlib", "CBrotli", "CZstd"]),
        room("Patterns", on: "Core", uses: ["CPCRE2"]),
        room("Observability", on: "Core", uses: ["Basics", "JSONCoding", "CLinux"]),
        room("Drawing", on: "Core", uses: ["Basics"]),

        // Policy: pure.
        room("Balancing", on: "Policy", uses: ["Basics"]),
        room("Resilience", on: "Policy", uses: ["Basics"]),
        room("Rightsizing", on: "Policy", uses: ["Basics"]),
        room("Lag", on: "Policy", uses: ["Basics"]),
        room("Caching", on: "Policy", uses: ["Basics"]),
        room("Sharding", on: "Policy", uses: ["Basics"]),
        room("PostgresFailover", on: "Policy", uses: ["Basics"]),
        room("PostgresRouting", on: "Policy", uses: ["Basics", "CPGQuery"]),
        room("Autoscaling", on: "Policy", uses: ["Basics"]),
        room("LoadPlanning", on: "Policy", uses: ["Basics", "JSONCoding"]),
        room("Replaying", on: "Policy", uses: ["Autoscaling", "Drawing", "Basics", "JSONCoding"]),
        room("Measurement", on: "Policy", uses: ["Basics"]),
        room("StackModel", on: "Policy", uses: ["Autoscaling", "Basics"]),
        room(
            "StackFile", on: "Policy",
            uses: [
                "StackModel", "Observability", "LoadPlanning", "Autoscaling", "Balancing", "Sharding", "Patterns", "Basics", "JSONCoding",
                "CYAML",
            ]),

        // Wire: bytes and sockets.
        room("EventLoops", on: "Wire", uses: ["Basics", "CLinux", "COpenSSL", "CTLS"]),
        room("HTTP", on: "Wire", uses: ["EventLoops", "Basics", "JSONCoding"]),
        room("HTTP2", on: "Wire", uses: ["HTTP", "Resilience", "Basics", "CNGHTTP2"]),
        room("Redis", on: "Wire", uses: ["EventLoops", "Resilience", "Sharding", "Basics", "COpenSSL"]),

        room("Postgres", on: "Wire", uses: ["EventLoops", "Basics", "COpenSSL"]),
        room("OpenTelemetry", on: "Wire", uses: ["Basics", "JSONCoding", "ProtobufCoding"]),

        // Runtime
        room("SharedState", on: "Runtime", uses: ["Redis", "EventLoops", "Observability", "Basics", "JSONCoding"]),
        room(
            "Gateway", on: "Runtime",
            uses: [
                "OpenTelemetry", "HTTP2", "HTTP", "Redis", "EventLoops", "Balancing", "Resilience", "Caching", "Compression",
                "StackModel", "Observability", "Patterns",
                "ProtobufCoding", "Basics",
                "JSONCoding",
                "CLinux", "CAdminPage", "COpenSSL", "CXXHash",
            ]),
        room("Loading", on: "Runtime", uses: ["LoadPlanning", "HTTP", "EventLoops", "Basics"]),
        room("Metering", on: "Runtime", uses: ["Gateway", "HTTP", "EventLoops", "Measurement", "Observability", "Basics"]),
        room(
            "Provisioning", on: "Runtime",
            uses: ["Redis", "EventLoops", "Sharding", "Observability", "Basics", "JSONCoding", "CLinux", "COpenSSL"]),
        // Kinds of store: what they have in common, and a folder a kind. Supervision knows the first only.
        room("StoreKinds", on: "Runtime/Stores", uses: ["EventLoops", "StackModel", "Measurement", "Basics"]),
        room(
            "RedisStores", in: "Redis", on: "Runtime/Stores",
            uses: [
                "StoreKinds", "Provisioning", "Sharding", "Redis", "EventLoops", "StackModel", "Measurement", "Observability", "Basics",
            ]),
        room(
            "PostgresStores", in: "Postgres", on: "Runtime/Stores",
            uses: [
                "StoreKinds", "Provisioning", "PostgresFailover", "Postgres", "EventLoops", "StackModel", "Measurement", "Basics",
            ]),
        room(
            "MemcachedStores", in: "Memcached", on: "Runtime/Stores",
            uses: ["StoreKinds", "EventLoops", "StackModel", "Basics"]),
        room(
            "Supervision", on: "Runtime",
            uses: [
                "StoreKinds", "Autoscaling", "Rightsizing", "Measurement", "Metering", "Gateway", "HTTP",
                "EventLoops", "StackModel", "Resilience",
                "Observability",
                "Basics", "JSONCoding", "CLinux",
            ]),

        // Services and tools
        room(
            "CorrelationEngine", on: "Services",
            uses: [
                "SharedState", "OpenTelemetry", "Redis", "HTTP", "EventLoops", "Sharding", "Resilience", "Observability", "Compression",
                "ProtobufCoding", "Basics",
                "JSONCoding",
                "COpenSSL", "CXXHash",
            ]),
        program("correlation-engine", on: "Services", uses: ["CorrelationEngine"]),
        program(
            "muster", on: "Tools",
            uses: [
                "CLinux", "Autoscaling", "Rightsizing", "Replaying", "Drawing", "Supervision", "StoreKinds", "RedisStores",
                "MemcachedStores", "PostgresStores",
                "Loading", "LoadPlanning", "Provisioning",
                "Redis", "Sharding", "Gateway", "StackFile", "StackModel", "HTTP", "EventLoops", "Observability", "Basics", "JSONCoding",
            ]),

        program("otlp-load", on: "Tools", uses: ["OpenTelemetry", "ProtobufCoding", "HTTP", "EventLoops", "JSONCoding", "Basics"]),
        program("redis-load", on: "Tools", uses: ["Redis", "EventLoops", "JSONCoding", "Basics"]),
        program("routing-bench", on: "Tools", uses: ["PostgresRouting", "Basics"]),
        program("autoscale-bench", on: "Tools", uses: ["Autoscaling", "Rightsizing", "Basics"]),

        // Tests: what they share, then one target a kind.
        .target(
            name: "TestSupport",
            dependencies: ["CNGHTTP2", "HTTP", "EventLoops", "Redis", "Postgres", "Sharding", "Basics", "JSONCoding", "CLinux"],
            path: "Tests/TestSupport",
            swiftSettings: strict),
        tests(
            "CoreTests",
            uses: [
                "TestSupport", "Basics", "JSONCoding", "ProtobufCoding", "Compression", "Observability", "Patterns", "CLinux", "CBrotli",
                "CZstd",
            ]),
        tests(
            "PolicyTests",
            uses: [
                "Autoscaling", "Replaying", "Drawing", "Rightsizing", "Lag", "Caching", "LoadPlanning", "Sharding", "PostgresFailover",
                "PostgresRouting", "Balancing", "Resilience",
                "StackFile",
                "StackModel",
                "Patterns", "Basics", "JSONCoding", "TestSupport", "Measurement",
            ], exclude: ["Cases"]),
        tests("HTTPTests", uses: ["Gateway", "HTTP2", "HTTP", "EventLoops", "StackFile", "StackModel", "Basics", "TestSupport"]),
        tests("PostgresTests", uses: ["Postgres", "EventLoops", "Basics", "TestSupport"]),
        tests("RedisTests", uses: ["Redis", "Provisioning", "Observability", "Sharding", "EventLoops", "Basics", "TestSupport"]),
        tests(
            "EngineTests",
            uses: ["CorrelationEngine", "OpenTelemetry", "ProtobufCoding", "Compression", "HTTP", "JSONCoding", "TestSupport"]),
        tests(
            "Simulation",
            uses: [
                "StoreKinds", "Rightsizing", "Autoscaling", "Measurement", "StackFile", "StackModel", "Supervision", "Sharding",
                "PostgresFailover",
                "MemcachedStores", "PostgresStores", "RedisStores", "Redis", "HTTP", "EventLoops",
                "Observability", "Basics", "TestSupport",
            ]),
        tests(
            "Loopback",
            uses: [
                "Metering", "Measurement", "Loading", "LoadPlanning", "Gateway", "HTTP", "Postgres", "Redis", "EventLoops", "StackFile",
                "StackModel",
                "Observability", "Compression",
                "Basics",
                "TestSupport",
            ]),
        tests(
            "RealServer",
            uses: [
                "CorrelationEngine", "OpenTelemetry", "ProtobufCoding", "Compression", "Provisioning", "Sharding", "SharedState", "Gateway",
                "PostgresRouting", "StackFile", "StackModel", "Postgres", "Redis", "RedisStores", "HTTP", "EventLoops", "Loading",
                "LoadPlanning",
                "Metering",
                "Measurement", "Observability",
                "TestSupport", "CLinux",
            ], exclude: ["Smuggling", "Cache"]),
        tests(
            "Golden", uses: ["Replaying", "Drawing", "Autoscaling", "LoadPlanning", "StackFile", "StackModel", "Basics", "TestSupport"],
            exclude: ["Replay", "Takeover", "Wrong", "Scenarios", "K6", "schema.json.expected"]),
        tests("Tidy", uses: ["Basics", "TestSupport"]),
    ],
    cxxLanguageStandard: .cxx17
)
