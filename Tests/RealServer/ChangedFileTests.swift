import Basics
import EventLoops
import Glibc
import Redis
import TestSupport
import Testing

/// `muster up` of a file that has changed, on a stack that runs.
@Suite(.serialized) struct ChangedFileTests {
    private static let state = "  state: { redis: { role: state, memory: 32Mi } }\n"
    private static let cache = "  cache: { memcached: { memory: 16Mi } }\n"

    private func text(_ stack: SmallStack, stores: String, services: String, tasks: String = "", routes: String) throws -> String {
        "stack: s\n" + (stores.isEmpty ? "" : "stores:\n\(stores)") + (tasks.isEmpty ? "" : "tasks:\n\(tasks)") + "services:\n\(services)"
            + "gateway:\n  listen: 127.0.0.1:\(stack.port)\n  routes: [\(routes)]\n"
    }

    private static let toWeb = "{ path: /, service: web }", toBoth = "{ path: /api, service: api }, { path: /, service: web }"

    /// The processes of a unit.
    private func pids(_ stack: SmallStack, _ unit: String) async throws -> Set<Int32> {
        Set(try await stack.rows().filter { $0.name.hasPrefix(unit + "/") }.map(\.pid))
    }

    @Test func whatIsNewBeginsAndWhatIsGoneEnds() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            try stack.put("s.yaml", try text(stack, stores: Self.state, services: web, routes: Self.toWeb))
            try await stack.up()
            let before = try await pids(stack, "web")
            let redis = try stack.redis("state", stack: "s")
            _ = try await redis.send(RedisCommand("SET", "kept", "yes"))
            redis.close()

            // A store, a task that writes a file, and a service that uses the one and waits for the other.
            let api = try stack.service("api", environment: "WHO: a", "replicas: 2", "uses: [cache]", "depends-on: [migrate]")
            let migrate = "  migrate: { command: \"sh -c 'echo done > migrated'\" }\n"
            try stack.put(
                "s.yaml",
                try text(stack, stores: Self.state + Self.cache, services: web + api, tasks: migrate, routes: Self.toBoth))
            let added = try await stack.muster("up", "-d", "s.yaml")
            #expect(added.status == 0, "\(added.output)")
            for line in ["api is new, and ready", "migrate is new, and ready", "cache is new, and ready", "routes replaced"] {
                #expect(added.output.contains(line), "\(line): \(added.output)")
            }
            #expect(try await stack.get("/api").text == "a")
            let variable = try await stack.get("/api/../env?name=MEMCACHED_SERVERS").status
            #expect(variable == 200 || variable == 400)
            #expect(try await pids(stack, "api").count == 2)
            #expect(Files.text("\(stack.folder)/migrated") == "done\n")
            #expect(try await pids(stack, "web") == before)
            // The same file again changes nothing, and runs no task again.
            Files.remove("\(stack.folder)/migrated")
            let again = try await stack.muster("up", "-d", "s.yaml")
            #expect(again.status == 0 && again.output.contains("runs already, as the file says"), "\(again.output)")
            #expect(!Files.exists("\(stack.folder)/migrated"))

            // All of it goes, and the first store too, under requests to what stays.
            try stack.put("s.yaml", try text(stack, stores: "", services: web, routes: Self.toWeb))
            let gone = try await stack.muster("up", "-d", "s.yaml")
            #expect(gone.status == 0, "\(gone.output)")
            for line in [
                "api is removed", "migrate is removed", "the store cache is removed", "the store state is removed; its data stays in",
            ] {
                #expect(gone.output.contains(line), "\(line): \(gone.output)")
            }
            #expect(try await stack.rows().map(\.name) == ["web/1"])
            #expect(try await pids(stack, "web") == before)
            #expect(try await stack.get("/api").text == "w")
            let why = try await stack.muster("why", "api", "--stack", "s.yaml")
            #expect(why.output.contains("the stack file has it no longer"), "\(why.output)")

            // The store comes again with what it had.
            try stack.put("s.yaml", try text(stack, stores: Self.state, services: web, routes: Self.toWeb))
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            let back = try stack.redis("state", stack: "s")
            #expect(try await back.send(RedisCommand("GET", "kept")).string == "yes")
            back.close()
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// What does not get ready is stopped again with all that came with it; the old stack serves on.
    @Test func whatDoesNotStartChangesNothing() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            let first = try text(stack, stores: "", services: web, routes: Self.toWeb)
            try stack.put("s.yaml", first)
            try await stack.up()
            let before = try await pids(stack, "web")
            func refused(_ services: String, tasks: String = "", _ words: String...) async throws {
                try stack.put("s.yaml", try text(stack, stores: Self.cache, services: web + services, tasks: tasks, routes: Self.toBoth))
                let said = try await stack.muster("up", "-d", "s.yaml")
                #expect(said.status != 0)
                for word in words { #expect(said.output.contains(word), "\(word): \(said.output)") }
                #expect(try await stack.rows().map(\.name) == ["web/1"])
                #expect(try await pids(stack, "web") == before)
                #expect(try await stack.get("/api").text == "w")
            }
            let broken = "  api: { command: \"sh -c 'echo no database here; exit 3'\", http: { port: 8000, ready: / } }\n"
            try await refused(
                broken, "api/1 does not start", "no database here", "nothing was changed; what was new is stopped again: api, cache")
            let missing = "  api: { command: [no-such-program], http: { port: 8000, ready: / } }\n"
            try await refused(missing, "nothing was changed: service api: there is no program 'no-such-program'")
            let held = try stack.service("api", "depends-on: [migrate]")
            try await refused(held, tasks: "  migrate: { command: \"sh -c 'exit 4'\" }\n", "the task migrate failed", "nothing was changed")

            // A file whose routes the gateway refuses, after what is new was ready.
            let api = try stack.service("api", environment: "WHO: a")
            let guarded = "{ path: /api, service: api, auth: { basic: nobody } }, " + Self.toWeb
            try stack.put("s.yaml", try text(stack, stores: "", services: web + api, routes: guarded))
            let unread = try await stack.muster("up", "-d", "s.yaml")
            #expect(unread.status != 0 && unread.output.contains("nobody"), "\(unread.output)")
            // What is mended is taken.
            try stack.put("s.yaml", try text(stack, stores: "", services: web + api, routes: Self.toBoth))
            let mended = try await stack.muster("up", "-d", "s.yaml")
            #expect(mended.status == 0, "\(mended.output)")
            #expect(try await stack.get("/api").text == "a")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A service that scales by itself goes while passes are made, and takes its time: nothing starts it again, and the supervisor lives.
    @Test func aServiceThatScalesIsRemovedToo() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            let slow =
                "  api:\n    command: [sh, -c, \"trap 'sleep 4; exit 0' TERM; \(try systemProgram("python3")) web.py & wait\"]\n"
                + "    grace: 10s\n    http: { port: 8000, live: /, ready: / }\n    replicas: 1..3\n    resources: { cpu: 500m }\n"
                + "    scale: { metrics: [{ cpu: 80% }], every: 1s }\n"
            try stack.put("s.yaml", try text(stack, stores: "", services: web + slow, routes: Self.toBoth))
            try await stack.up()
            let supervisor = try stack.supervisor(of: try await stack.row("web/1")).supervisor
            try stack.put("s.yaml", try text(stack, stores: "", services: web, routes: Self.toWeb))
            let gone = try await stack.muster("up", "-d", "s.yaml")
            #expect(gone.status == 0 && gone.output.contains("api is removed"), "\(gone.output)")
            #expect(try stack.supervisor(of: try await stack.row("web/1")).supervisor == supervisor)
            #expect(try await stack.rows().map(\.name) == ["web/1"])
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// What is new may wait for a task that failed before, and for a service that is broken: the same file mends them.
    @Test func whatIsNewMayWaitForWhatIsMended() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            func migrate(_ status: Int) -> String { "  migrate: { command: \"sh -c 'exit \(status)'\" }\n" }
            try stack.put("s.yaml", try text(stack, stores: "", services: web, tasks: migrate(0), routes: Self.toWeb))
            try await stack.up()
            try stack.put("s.yaml", try text(stack, stores: "", services: web, tasks: migrate(5), routes: Self.toWeb))
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 1)
            let api = try stack.service("api", environment: "WHO: a", "depends-on: [migrate]")
            try stack.put("s.yaml", try text(stack, stores: "", services: web + api, tasks: migrate(0), routes: Self.toBoth))
            let mended = try await stack.muster("up", "-d", "s.yaml")
            #expect(mended.status == 0 && mended.output.contains("the task migrate runs again"), "\(mended.output)")
            #expect(try await stack.get("/api").text == "a")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A service under another name cannot have the port that the old one still has: what answers there is not the new one.
    @Test func aFixedPortThatIsTakenIsToldBeforeAnythingStarts() async throws {
        try await withSmallStack { stack in
            let port = TestPorts.server()
            func named(_ name: String) throws -> String {
                try stack.service(name).replacing("port: 8000", with: "port: \(port), fixed: true")
            }
            try stack.put("s.yaml", try text(stack, stores: "", services: try named("old"), routes: "{ path: /, service: old }"))
            try await stack.up()
            try stack.put("s.yaml", try text(stack, stores: "", services: try named("new"), routes: "{ path: /, service: new }"))
            let said = try await stack.muster("up", "-d", "s.yaml")
            #expect(said.status != 0 && said.output.contains("services.new.http.port: port \(port) is in use"), "\(said.output)")
            #expect(try await stack.rows().map(\.name) == ["old/1"])
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// The size that somebody asks for with a new service outlives the supervisor; that of one which had its name before does not.
    @Test func sizesOfWhatComesAreRecorded() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            func put(_ more: String) throws {
                try stack.put("s.yaml", try text(stack, stores: "", services: web + more, routes: Self.toWeb))
            }
            func restart() async throws {
                let supervisor = try stack.supervisor(of: try await stack.row("web/1")).supervisor
                kill(supervisor, SIGKILL)
                let isBack = try await eventually(.seconds(30)) {
                    let rows = try await stack.rows()
                    return !rows.isEmpty && rows.allSatisfy { $0.state == "ready" } && rows.contains { $0.name == "web/1" }
                        && (try? stack.supervisor(of: rows.first { $0.name == "web/1" }!).supervisor) != supervisor
                }
                #expect(isBack)
            }
            func count(_ unit: String) async throws -> Int { try await pids(stack, unit).count }
            try put("")
            try await stack.up()
            try put(try stack.service("api"))
            let added = try await stack.muster("up", "-d", "s.yaml", "--replicas", "api=3")
            #expect(added.status == 0, "\(added.output)")
            try await restart()
            let isKept = try await eventually(.seconds(20)) { try await count("api") == 3 }
            #expect(isKept)
            try put("")
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            try put(try stack.service("api", "replicas: 2"))
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            #expect(try await count("api") == 2)
            try await restart()
            let isAsTheFileSays = try await eventually(.seconds(20)) { try await count("api") == 2 }
            #expect(isAsTheFileSays)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A store that had data, whose folder is away, is refused however often it is asked for: nothing begins in its place.
    @Test func aStoreWhoseFolderIsAwayStaysRefused() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            func put(_ stores: String) throws {
                try stack.put("s.yaml", try text(stack, stores: stores, services: web, routes: Self.toWeb))
            }
            try put(Self.state)
            try await stack.up()
            try put("")
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            let folder = "\(stack.folder)/.muster/s/stores/state"
            #expect(rename(folder, "\(stack.folder)/elsewhere") == 0)
            try put(Self.state)
            for _ in 0..<2 {
                let said = try await stack.muster("up", "-d", "s.yaml")
                #expect(said.status != 0 && said.output.contains("is its disk mounted"), "\(said.output)")
                #expect(try await stack.rows().map(\.name) == ["web/1"])
            }
            #expect(rename("\(stack.folder)/elsewhere", folder) == 0)
            let back = try await stack.muster("up", "-d", "s.yaml")
            #expect(back.status == 0, "\(back.output)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A task that is there already runs again after the new store that it uses, and before the new service that waits for it. One that has
    /// failed and goes with the file is not run once more.
    @Test func tasksRunAfterWhatTheyWaitFor() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            func put(_ stores: String, _ more: String, _ tasks: String, _ routes: String) throws {
                try stack.put("s.yaml", try text(stack, stores: stores, services: web + more, tasks: tasks, routes: routes))
            }
            try put("", "", "  migrate: { command: \"sh -c 'true'\" }\n", Self.toWeb)
            try await stack.up()
            let asks =
                "  migrate: { command: \"sh -c 'redis-cli -u $REDIS_URL ping > asked; grep -q -e PONG -e NOAUTH asked'\", uses: [state] }\n"
            try put(Self.state, try stack.service("api", environment: "WHO: a", "depends-on: [migrate]"), asks, Self.toBoth)
            let added = try await stack.muster("up", "-d", "s.yaml")
            #expect(added.status == 0, "\(added.output)")
            // Whatever it says of the password: it was there.
            #expect(Files.text("\(stack.folder)/asked")?.isEmpty == false)
            #expect(try await stack.get("/api").text == "a")
            let counts = "  seed: { command: \"sh -c 'echo x >> seeded; exit 3'\" }\n"
            try put(Self.state, "", counts, Self.toWeb)
            #expect(try await stack.muster("up", "-d", "s.yaml").status != 0)
            let before = Files.text("\(stack.folder)/seeded")
            #expect(before?.isEmpty == false)
            try put(Self.state, "", "", Self.toWeb)
            let gone = try await stack.muster("up", "-d", "s.yaml")
            #expect(gone.status == 0, "\(gone.output)")
            #expect(Files.text("\(stack.folder)/seeded") == before)
            // What lies beside the stack's folder and is none is no hindrance to anything.
            try Files.replace("\(stack.folder)/.muster/.gitignore", with: Array("*\n".utf8))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(try await stack.muster("down", "--purge", "s.yaml").status == 0)
        }
    }

    /// One change at a time, where units come or go; whoever comes meanwhile is told, and nothing of the first is lost.
    @Test func anotherChangeMeanwhileIsRefused() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            try stack.put("s.yaml", try text(stack, stores: "", services: web, routes: Self.toWeb))
            try await stack.up()
            // It is ready when the test says so.
            let api = try stack.service("api", environment: "WHO: a", "depends-on: [gate]")
            let gate = "  gate: { command: \"sh -c 'until [ -e open ]; do sleep 0.1; done'\" }\n"
            try stack.put("s.yaml", try text(stack, stores: "", services: web + api, tasks: gate, routes: Self.toBoth))
            async let first = stack.muster("up", "-d", "s.yaml")
            let waits = try await eventually(.seconds(20)) { try await stack.rows().contains { $0.name == "gate/1" } }
            #expect(waits)
            for verb in [["up", "-d", "s.yaml"], ["roll", "web", "s.yaml"]] {
                let second = try await run(builtProgram("muster"), verb, folder: stack.folder)
                #expect(second.status != 0 && second.output.contains("try again when"), "\(verb): \(second.output)")
            }
            try stack.put("open", "")
            let done = try await first
            #expect(done.status == 0 && done.output.contains("api is new, and ready"), "\(done.output)")
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A store that was never ready leaves nothing behind that would keep another form of it away.
    @Test func aStoreThatNeverCameMayComeInAnotherForm() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            func put(_ store: String, _ services: String) throws {
                try stack.put("s.yaml", try text(stack, stores: store, services: web + services, routes: Self.toWeb))
            }
            try put("", "")
            try await stack.up()
            let cluster = "  state: { redis: { role: state, memory: 32Mi, masters: 3 } }\n"
            try put(cluster, "  jobs: { command: [no-such-program] }\n")
            #expect(try await stack.muster("up", "-d", "s.yaml").output.contains("no-such-program"))
            #expect(!Files.exists("\(stack.folder)/.muster/s/stores/state"))
            try put(Self.state, "")
            let single = try await stack.muster("up", "-d", "s.yaml")
            #expect(single.status == 0, "\(single.output)")
            // A single server that was new beside what does not start has left no mark either: it was never there.
            try put("", "")
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            let other = "  other: { redis: { role: state, memory: 32Mi } }\n"
            try put(other, "  jobs: { command: \"sh -c 'exit 7'\", restart: never, depends-on: [web] }\n")
            let jobless = try await stack.muster("up", "-d", "s.yaml")
            #expect(jobless.status != 0 && jobless.output.contains("jobs/1"), "\(jobless.output)")
            try put(Self.state + other, "")
            let both = try await stack.muster("up", "-d", "s.yaml")
            #expect(both.status == 0, "\(both.output)")
            try put(Self.state, "")
            #expect(try await stack.muster("up", "-d", "s.yaml").status == 0)
            // One that somebody else runs, and that is away.
            let away = "  far: { redis: { external: { url: \"redis://127.0.0.1:\(TestPorts.server())\" } } }\n"
            try put(Self.state + away, "")
            let told = try await stack.muster("up", "-d", "s.yaml")
            #expect(told.status != 0 && told.output.contains("is away"), "\(told.output)")
            #expect(try await stack.rows().map(\.name).sorted() == ["state/1", "web/1"])
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// What cannot change while the stack runs is told by its name.
    @Test func whatNeedsANewStartIsTold() async throws {
        try await withSmallStack { stack in
            let web = try stack.service("web", environment: "WHO: w")
            try stack.put("s.yaml", try text(stack, stores: Self.state, services: web, routes: Self.toWeb))
            try await stack.up()
            func refused(_ text: String, _ words: String) async throws {
                try stack.put("s.yaml", text)
                let said = try await stack.muster("up", "-d", "s.yaml")
                #expect(said.status != 0 && said.output.contains(words), "\(words): \(said.output)")
            }
            try await refused(
                try text(stack, stores: Self.state.replacing("32Mi", with: "64Mi"), services: web, routes: Self.toWeb),
                "the store state is changed: run muster down, then muster up")
            try await refused(
                try text(stack, stores: Self.state, services: web, routes: Self.toWeb) + "  admin: 127.0.0.1:\(TestPorts.server())\n",
                "gateway.admin is changed")
            try await refused(
                try text(stack, stores: "", services: web + (try stack.service("state")), routes: Self.toWeb),
                "state was a store and is a service")
            #expect(try await stack.get().text == "w")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }
}
