import Basics
import StackModel
import Testing

@testable import StackFile

@Suite struct StoreReaderTests {
    private func read(_ text: String, environment: [String: String] = [:], files: [String: String] = [:]) throws(Problems) -> Stack {
        let onDisk = StackFiles(
            read: { name, limit in
                guard let text = files[name] else { return .absent }
                return text.utf8.count > limit ? .unreadable("read \(name) (more than \(limit) bytes)") : .bytes(Array(text.utf8))
            }, flaw: { _ in nil })
        return try Stack.read(Array(text.utf8), path: "s.yaml", files: onDisk) { environment[$0] }
    }

    private func faults(_ text: String, environment: [String: String] = [:], files: [String: String] = [:]) -> String {
        do throws(Problems) { _ = try read(text, environment: environment, files: files) } catch { return error.description }
        return ""
    }

    @Test func aStoreIsDeclaredByItsKind() throws {
        let stack = try read(
            """
            services: { api: { command: x, uses: [state, cache, { store: remote, as: REMOTE_URL }] }, one: { command: x, uses: state } }
            stores:
              state: { redis: { role: state, masters: 3 } }
              cache: { memcached: { memory: 64MiB } }
              remote: { redis: { external: { url: "${REMOTE}" } } }
            """, environment: ["REMOTE": "rediss://u:p@h:6380/2"])
        #expect(
            stack.service("api")?.uses == [
                StoreUse(store: "state", variable: "REDIS_URL"), StoreUse(store: "cache", variable: "MEMCACHED_SERVERS"),
                StoreUse(store: "remote", variable: "REMOTE_URL"),
            ])
        #expect(stack.service("one")?.uses == [StoreUse(store: "state", variable: "REDIS_URL")])
        #expect(stack.stores.map(\.nodes) == [6, 1, 0])
        #expect(stack.stores[1].form == .run(.memcached(MemcachedSettings(memory: 64 << 20, port: nil, connections: 1024))))
        let external = try #require(stack.stores[2].external)
        #expect(external.url.reveal == "rediss://u:p@h:6380/2" && external.key == "stores.remote.redis.external.url")
        #expect(external.place.description == "s.yaml:5:39" && stack.stores[2].kind == .redis)
    }

    /// A secret is in no text that is made of a stack.
    @Test func anExternalStoresURLIsNotPrinted() throws {
        let stack = try read("stores: { a: { redis: { external: { url: 'redis://:hidden@h' } } } }")
        var dumped = ""
        dump(stack, to: &dumped)
        for text in ["\(stack)", String(reflecting: stack), dumped] { #expect(!text.contains("hidden")) }
    }

    @Test func aFileTellsTheURL() throws {
        let text = "stores: { a: { redis: { external: { url-file: url } } } }"
        #expect(try read(text, files: ["url": "redis://h:1\n"]).stores[0].external?.url.reveal == "redis://h:1")
        #expect(faults(text) == "s.yaml:1:47: stores.a.redis.external.url-file: there is no file 'url'")
        #expect(faults(text, files: ["url": "\n"]).contains("url-file: the URL is empty"))
        #expect(faults(text, files: ["url": "redis://h\nredis://i\n"]).contains("has a blank, a line break"))
        #expect(
            faults(text, files: ["url": String(repeating: "x", count: 9000)]).contains("it cannot be read: read url (more than 8192 bytes)")
        )
    }

    /// Each bad URL is one line with its place, and never quotes what may be a password.
    @Test(arguments: [
        ("http://:hidden@h", "found 'http://'"), (":hidden@h", "there is no '://' in it"),
        ("hid!den://h", "found something else before '://'"),
        ("redis://", "names no host"), ("redis://:hid den@h", "has a blank"), ("${EMPTY}", "the URL is empty"),
        ("${UNSET}", "UNSET is not set in the environment"), ("memcached://h", "found 'memcached://'"),
    ])
    func aBadURLIsToldInOneLine(url: String, what: String) {
        let told = faults("stores: { a: { redis: { external: { url: \"\(url)\" } } } }", environment: ["EMPTY": ""])
        #expect(told.hasPrefix("s.yaml:1:42: stores.a.redis.external.url: ") && told.contains(what) && !told.contains("\n"), "\(told)")
        #expect(!told.contains("hidden") && !told.contains("hid den"), "\(told)")
    }

    @Test func twoStoresUnderOneNameAreToldWhereTheSecondStands() {
        let stores = "stores: { a: { redis: { role: cache } }, b: { redis: { role: cache } } }\nservices: { s: { command: x, "
        #expect(
            faults(stores + "uses: [a, b] } }")
                == "s.yaml:2:40: services.s.uses: 'b' would arrive as REDIS_URL, and so does 'a': give one of them another name, as in "
                + "{ store: b, as: B_URL }")
        #expect(faults(stores + "uses: [a, a] } }").contains("'a' would arrive as REDIS_URL, and so does 'a'"))
        #expect(faults(stores + "uses: [{ store: a, as: X }, { store: b, as: X }] } }").contains("'b' would arrive as X"))
        #expect(faults(stores + "uses: [a, { store: b, as: B_URL }] } }") == "")
        // A name of its own is no way around another's.
        #expect(faults(stores + "uses: [a, { store: b, as: REDIS_URL }] } }").contains("would arrive as REDIS_URL"))
    }

    @Test(arguments: [
        ("PORT", "has a meaning of its own"), ("MUSTER_REPLICA", "has a meaning of its own"), ("PATH", "has a meaning of its own"),
        ("1X", "is no name of an environment variable"), ("A-B", "is no name"), ("''", "is no name"), ("E", "'environment' declares E"),
    ])
    func aNameThatCannotBeIsTold(name: String, what: String) {
        let told = faults(
            "stores: { a: { redis: { role: cache } } }\nservices: { s: { command: x, environment: { E: 1 }, uses: { store: a, as: \(name) } } }"
        )
        #expect(told.hasPrefix("s.yaml:2:75: services.s.uses: as: ") && told.contains(what), "\(told)")
    }

    /// What is wrong with a store's settings is told once, and not again by those who use it.
    @Test func aStoreThatIsWrongIsThereAllTheSame() {
        let told = faults("stores: { a: { memcached: { memory: 1Ki } } }\nservices: { s: { command: x, uses: [a] } }")
        #expect(told == "s.yaml:1:37: stores.a.memcached.memory: expected a size from 2Mi to 1Ti, found '1Ki'")
        #expect(
            faults("stores: { a: {} }\nservices: { s: { command: x, uses: [a] } }").hasSuffix(
                "exactly one kind of redis, memcached, postgres; found none"))
    }

    @Test func theAutoscalerCountsInARedisOnly() {
        let told = faults(
            """
            stores: { cache: { memcached: {} } }
            services:
              s: { command: x, replicas: 1..3, scale: { metrics: [{ redis: cache, list: l, average: 5 }] } }
            """)
        #expect(told.contains("3:64: ") && told.contains("the store 'cache' is a memcached"), "\(told)")
    }

    /// A key on another line is the same stack; another URL is another one.
    @Test func placesMakeNoDifference() throws {
        let text = "stores: { a: { redis: { external: { url: 'redis://h' } } } }"
        #expect(try read(text) == read("\n\n" + text))
        #expect(try read(text) != read(text.replacing("redis://h", with: "redis://i")))
    }
}
