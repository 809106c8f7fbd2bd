import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

/// The keys of a service that say how its processes are started, through the real supervisor.
@Suite(.serialized) struct ServiceKeyTests {
    private func text(_ stack: SmallStack, _ name: String) async throws -> String {
        let digits = Array(try await stack.get("/env?name=\(name)").text.utf8)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func arguments(_ pid: Int32) -> [String] {
        (Files.text("/proc/\(pid)/cmdline") ?? "").split(separator: "\0", omittingEmptySubsequences: false).dropLast().map(String.init)
    }

    @Test func aLineIsSplitAndFilledWithWhatTheProcessGets() async throws {
        try await withSmallStack { stack in
            let python = try systemProgram("python3")
            try Files.makeFolder(stack.folder + "/app")
            try stack.put(".env", "GREETING='hello there'\nWHO=from dotenv\n")
            try stack.put("app.env", "# defaults\nWHO=nobody\nFROM_FILE=\"${GREETING}, $OUTSIDE\"\n")
            let file = """
                services:
                  web:
                    command: \(python) ../web.py "$GREETING" $GREETING --port=$PORT "no shell"{a,b} *
                    working-directory: app
                    env-file: app.env
                    environment: { WHO: "$WHO, $$5" }
                    grace: 1s
                    http: { live: /, ready: / }

                """
            try stack.put("s.yaml", file + stack.gateway())
            try await stack.up(environment: ["OUTSIDE": "outside"])
            let row = try await stack.row("web/1")
            #expect(
                arguments(row.pid) == [
                    python, "../web.py", "hello there", "hello", "there", "--port=\(row.port ?? 0)", "no shell{a,b}", "*",
                ])
            #expect(try await stack.get().text == "from dotenv, $5")
            #expect(try await text(stack, "FROM_FILE") == "hello there, outside")
            // A changed env-file is a changed service.
            try stack.put("app.env", "FROM_FILE=changed\n")
            try await stack.up(environment: ["OUTSIDE": "outside"])
            #expect(try await text(stack, "FROM_FILE") == "changed")
            let rolled = try await stack.rows()
            #expect(rolled.count == 1 && rolled[0].pid != row.pid, "\(rolled)")
        }
    }

    @Test func whatIsMissingIsToldWithItsPlaceAndNothingIsStarted() async throws {
        try await withSmallStack { stack in
            let cases = [
                ("env-file: gone.env", "s.yaml:5:15: services.web.env-file: there is no file 'gone.env'"),
                ("working-directory: gone", "s.yaml:5:24: services.web.working-directory: 'gone' cannot be entered: no such file"),
                ("working-directory: web.py", "s.yaml:5:24: services.web.working-directory: 'web.py' is no folder"),
                ("user: no-such-user-here", "s.yaml:5:11: services.web.user: there is no user 'no-such-user-here'"),
                ("env-file: bad.env", "bad.env:2:3: B: NOT_SET_ANYWHERE is not set"), ("env-file: /dev/zero", "'/dev/zero' is no file"),
            ]
            try stack.put("bad.env", "A=1\nB=$NOT_SET_ANYWHERE\n")
            for (key, expected) in cases {
                try stack.put("s.yaml", "stack: s\nservices:\n  web:\n    command: sleep 100\n    \(key)\n")
                let (status, output) = try await stack.muster("up", "-d", "s.yaml")
                #expect(status == 2 && output.lowercased().contains(expected.lowercased()), "\(key): \(output)")
                #expect(stack.processes.isEmpty)
            }
        }
    }

    @Test func aServiceRunsAsItsUser() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n  web:\n    command: sleep 1000\n    user: nobody\n    working-directory: /\n    grace: 1s\n")
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            guard geteuid() == 0 else {
                #expect(status == 2 && output.contains("only root can start a process as another user"), "\(output)")
                return
            }
            #expect(status == 0, "\(output)")
            let nobody = try required(getpwnam("nobody")).pointee
            let pid = try await stack.row("web/1").pid
            let lines = try required(Files.text("/proc/\(pid)/status")).split(separator: "\n")
            func ids(_ key: String) -> [String] {
                lines.first { $0.hasPrefix(key) }?.split(whereSeparator: { $0 == "\t" || $0 == " " }).dropFirst().map(String.init) ?? []
            }
            #expect(ids("Uid:") == Array(repeating: String(nobody.pw_uid), count: 4))
            #expect(ids("Gid:") == Array(repeating: String(nobody.pw_gid), count: 4))
            #expect(!ids("Groups:").contains("0"), "\(ids("Groups:"))")
            let environment = Set((Files.text("/proc/\(pid)/environ") ?? "").split(separator: "\0").map(String.init))
            #expect(environment.contains("USER=nobody") && environment.contains("HOME=\(String(cString: nobody.pw_dir))"))
            // It is stopped, and no other process of it is left.
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(!isAlive(pid))
            // What that user may not start is told as such.
            try Files.makeFolder(stack.folder + "/closed", mode: 0o700)
            try stack.put(
                "s.yaml", "stack: s\nservices:\n  web:\n    command: sleep 10\n    user: nobody\n    working-directory: closed\n")
            let closed = try await stack.muster("up", "-d", "s.yaml")
            #expect(closed.status == 1 && closed.output.contains("as nobody: Permission denied"), "\(closed.output)")
        }
    }

    @Test func aProcessGetsWhatIsDeclaredAndSecretsByTheirFiles() async throws {
        try await withSmallStack { stack in
            try stack.put("key", "hunter2-the-secret")
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n" + (try stack.service(environment: "A: \"$PASSED\"", "secrets: { DB_PASSWORD: { file: key } }"))
                    + stack.gateway())
            try await stack.up(environment: ["LEAK": "leaked", "PASSED": "passed", "LANG": "xx_YY", "AWS_SECRET_ACCESS_KEY": "no"])
            let row = try await stack.row("web/1")
            let entries = (Files.text("/proc/\(row.pid)/environ") ?? "").split(separator: "\0").map(String.init)
            #expect(entries.contains("A=passed") && entries.contains("LANG=xx_YY"))
            #expect(entries.contains("DB_PASSWORD_FILE=\(Files.absolute(stack.folder + "/key"))"))
            let known: Set<String> = [
                "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE", "HOST", "INSTANCE_ID", "MUSTER_STACK",
                "MUSTER_SERVICE", "MUSTER_REPLICA", "PORT", "A", "DB_PASSWORD_FILE",
            ]
            let others = entries.compactMap { $0.split(separator: "=").first.map(String.init) }.filter {
                !known.contains($0) && !$0.hasPrefix("LC_")
            }
            #expect(others.isEmpty, "\(others)")
            #expect(try await text(stack, "DB_PASSWORD_FILE").hasSuffix("/key"))
            for line in arguments(row.pid) + entries { #expect(!line.contains("hunter2")) }
            for log in Files.list(stack.folder + "/.muster/s/logs") {
                #expect(Files.text(stack.folder + "/.muster/s/logs/" + log)?.contains("hunter2") != true)
            }
            unlink(stack.folder + "/key")
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status != 0 && output.contains("services.web.secrets.DB_PASSWORD: there is no secret in 'key'"), "\(output)")
        }
    }

    // MARK: workers

    @Test func aWorkerIsAskedByACommandOrAConnection() async throws {
        try await withSmallStack { stack in
            let python = try systemProgram("python3")
            try stack.put(
                "s.yaml",
                """
                stack: s
                services:
                  a:
                    command: sleep 1000
                    grace: 1s
                    check: { command: "test -e good$INSTANCE_ID", every: 100ms }
                  b:
                    command: \(python) web.py
                    grace: 1s
                    check: { tcp: PORT }
                  hangs:
                    command: sleep 1000
                    grace: 1s
                    environment: { A: b }
                    check: { command: [sh, -c, '[ -e slow ] && exec sleep 100; exit 0'], every: 100ms, timeout: 200ms }

                """)
            try stack.put("good1", "")
            try await stack.up()
            #expect(try await stack.rows().map(\.state) == ["ready", "ready", "ready"])
            unlink(stack.folder + "/good1")
            let failing = await eventually(.seconds(10)) { (try? await stack.row("a/1"))?.state == "failed" }
            let row = try await stack.row("a/1")
            #expect(failing && row.restarts == 0 && row.trouble.contains("the check 'test' ended with exit status 1"), "\(row)")
            try stack.put("good1", "")
            #expect(await eventually(.seconds(10)) { (try? await stack.row("a/1"))?.state == "ready" })
            // A check that does not end is killed each time, and leaves no process.
            try stack.put("slow", "")
            #expect(
                await eventually(.seconds(20)) { (try? await stack.row("hangs/1"))?.trouble.contains("did not end within 200ms") == true })
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    @Test func aWorkerThatNeverBecomesWellIsToldWithItsCheck() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n  a: { command: sleep 1000, grace: 1s, start: 1s, check: { tcp: \(TestPorts.server()) } }\n")
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(
                status == 1 && output.contains("a/1 does not start: not ready within 1s") && output.contains("takes no connection"),
                "\(output)")
        }
    }

    @Test func restartSaysWhoIsStartedAgain() async throws {
        try await withSmallStack { stack in
            let worker = "command: [sh, -c, 'echo x >> $0; sleep 0.3; exit $1'"
            try stack.put(
                "s.yaml",
                """
                stack: s
                services:
                  done: { \(worker), done.runs, '0'], restart: on-failure }
                  fails: { \(worker), fails.runs, '3'], restart: never }
                  again: { \(worker), again.runs, '3'], restart: on-failure }
                  kept: { command: sleep 1000, grace: 1s }

                """)
            try await stack.up()
            func runs(_ name: String) -> Int { (Files.text("\(stack.folder)/\(name).runs") ?? "").count { $0 == "x" } }
            #expect(await eventually(.seconds(15)) { runs("again") >= 3 })
            #expect(runs("done") == 1 && runs("fails") == 1)
            let rows = try await stack.rows()
            func row(_ name: String) -> SmallStack.Row? { rows.first { $0.name == name } }
            #expect(row("done/1")?.state == "completed" && row("done/1")?.pid == 0)
            #expect(row("fails/1")?.state == "failed" && row("fails/1")?.trouble == "exit status 3")
            #expect(
                try await stack.muster("why", "fails", "--stack", "s.yaml").output.contains("is not started again: its 'restart' is never"))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    @Test func aFixedPortIsListenedOnAndRolled() async throws {
        try await withSmallStack { stack in
            let port = TestPorts.server()
            func write(_ who: String, _ replicas: String = "1") throws {
                let text = "stack: s\nservices:\n" + (try stack.service(environment: "WHO: \(who)")) + stack.gateway()
                try stack.put("s.yaml", text.replacing("port: 8000", with: "port: \(port), fixed: true"))
            }
            try write("one")
            try await stack.up()
            #expect(try await stack.get(port: Int(port)).text == "one")
            try write("two")
            try await stack.up()
            #expect(try await stack.get(port: Int(port)).text == "two")
            #expect(try await stack.get().text == "two")
            let row = try await stack.row("web/1")
            #expect(try await stack.rows().count == 1 && row.port == Int(port))
            #expect(try await stack.muster("scale", "web=2", "s.yaml").output.contains("a fixed port, which only one replica can have"))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            // Connections of before that are not quite over do not hinder it.
            try await stack.up()
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            let taken = try RawListener(port: port)
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status == 1 && output.contains("services.web.http.port: port \(port) is in use"), "\(output)")
            taken.close()
        }
    }

    // MARK: tasks

    private static let tasks = """
        stack: s
        services:
          db: { command: [sh, -c, 'sleep 0.5; touch db-ready; exec sleep 1000'], grace: 1s, check: { command: test -e db-ready, every: 100ms } }
          web: { command: [sh, -c, 'cat migrated > seen; exec sleep 1000'], grace: 1s, depends-on: [migrate] }
          other: { command: sleep 1000, grace: 1s }
        tasks:
          migrate: { command: [sh, -c, 'echo run >> runs; ls db-ready > migrated; . ./migration'], depends-on: [db], timeout: 3s, grace: 1s }

        """

    private static let blocked = """
        stack: s
        services:
          app:
            command: sleep 1000
            grace: 1s
            replicas: 1..8
            resources: { cpu: 1, memory: 64Mi }
            scale: { metrics: [{ cpu: 50% }], every: 1s, down: { pods: 8, every: 1s, stabilization: 1s } }
        tasks:
          wait: { command: [sh, -c, 'until [ -e go ]; do sleep 0.02; done'], timeout: 5m, grace: 1s }

        """

    /// What somebody sets while the stack is starting is held when it runs; what is freed meanwhile is free.
    @Test(arguments: [5, nil] as [Int?]) func aSizeThatIsSetDuringTheStartIsHeld(held: Int?) async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ServiceKeyTests.blocked)
            let starting = try Child(
                builtProgram("muster"), ["up", "-d", "s.yaml"] + (held == nil ? ["--replicas", "app=5"] : []),
                log: stack.folder + "/up.out", folder: stack.folder)
            let isWaiting = try await eventually { try await stack.rows().contains { $0.name == "wait/1" && $0.state == "starting" } }
            #expect(isWaiting, "\(starting.output)")
            // The verb would wait until the stack runs.
            let socket = Endpoint.address(.unix(stack.folder + "/.muster/s/control.sock"))
            let wish = "{\"service\": \"app\"\(held.map { ", \"replicas\": \($0)" } ?? "")}"
            let told = try await stack.client.send("POST", "/api/scale", to: socket, body: Array(wish.utf8))
            #expect(told.status == 200, "\(told.text)")
            try stack.put("go", "")
            #expect(await starting.end() == 0, "\(starting.output)")
            let answer = try await stack.client.send("GET", "/api/scaling", to: socket)
            #expect(answer.text.contains("\"held\":\(held.map(String.init) ?? "null"),"), "\(answer.text)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// A service that ended without success and is not started again holds what depends on it. After a crash of the supervisor, that is: at
    /// the first start the stack ends with it.
    @Test func aDependencyThatFailedIsNotReady() async throws {
        try await withSmallStack { stack in
            let file = """
                stack: s
                services:
                  db: { command: [sh, -c, '[ -e broken ] && exit 3; touch db-ready; exec sleep 1000'], grace: 1s, restart: never, check: { command: test -e db-ready, every: 100ms } }
                  other: { command: sleep 1000, grace: 1s }
                tasks:
                  migrate: { command: [sh, -c, 'echo run >> runs'], depends-on: [db], grace: 1s }

                """
            try stack.put("s.yaml", file)
            try stack.put("broken", "")
            let first = try await stack.muster("up", "-d", "s.yaml")
            #expect(first.status != 0 && first.output.contains("db/1 does not start"), "\(first.output)")
            #expect(Files.text(stack.folder + "/runs") == nil)
            Files.remove(stack.folder + "/broken")
            try await stack.up()
            #expect(Files.text(stack.folder + "/runs") == "run\n")
            try stack.put("broken", "")
            Files.remove(stack.folder + "/db-ready")
            let other = try await stack.row("other/1")
            kill(try stack.supervisor(of: other).supervisor, SIGKILL)
            let isBack = try await eventually(.seconds(30)) {
                let rows = try await stack.rows()
                return rows.contains { $0.name == "other/1" && $0.pid != other.pid && $0.state == "ready" }
                    && rows.contains { $0.name == "db/1" && $0.state == "failed" }
            }
            #expect(isBack)
            // The task is not run on it, neither then nor when somebody asks, and who asks is told why.
            let second = try await stack.muster("up", "-d", "s.yaml")
            #expect(
                second.status == 1 && second.output.contains("the service db is not ready: db/1 ended (exit status 3)"), "\(second.output)")
            #expect(second.output.contains("waiting for it: migrate"), "\(second.output)")
            #expect(Files.text(stack.folder + "/runs") == "run\n")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    @Test func aTaskRunsOnceBeforeWhatDependsOnIt() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ServiceKeyTests.tasks)
            try stack.put("migration", "sleep 0.5; echo done >> migrated\n")
            try await stack.up()
            #expect(await eventually(.seconds(5)) { Files.text(stack.folder + "/seen") == "db-ready\ndone\n" })
            #expect(Files.text(stack.folder + "/runs") == "run\n")
            let row = try await stack.row("migrate/1")
            #expect(row.state == "completed" && row.pid == 0)
            // Unchanged, it does not run again; changed, it runs before the roll of what depends on it.
            try await stack.up()
            #expect(Files.text(stack.folder + "/runs") == "run\n")
            let text = ServiceKeyTests.tasks.replacing("timeout: 3s", with: "timeout: 4s").replacing("> seen", with: "> seen2")
            try stack.put("s.yaml", text)
            try stack.put("migration", "sleep 0.5; echo again >> migrated\n")
            try await stack.up()
            #expect(await eventually(.seconds(5)) { Files.text(stack.folder + "/seen2") == "db-ready\nagain\n" })
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    @Test func aFailedTaskIsToldNotRepeatedAndHoldsWhatDependsOnIt() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ServiceKeyTests.tasks)
            try stack.put("migration", "echo no such table; exit 3\n")
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status == 1 && output.contains("the task migrate failed: exit status 3; waiting for it: web"), "\(output)")
            #expect(output.contains("| no such table"), "\(output)")
            #expect(
                try await stack.rows().map { "\($0.name) \($0.state)" }.sorted() == ["db/1 ready", "migrate/1 failed", "other/1 ready"])
            #expect(try await stack.muster("why", "migrate", "--stack", "s.yaml").output.contains("It is not tried again by itself"))
            try await Task.sleep(for: .seconds(1))
            #expect(Files.text(stack.folder + "/runs") == "run\n" && !Files.exists(stack.folder + "/seen"))
            // One that does not end is ended, and has failed; what it has started goes with it.
            try stack.put("migration", "sleep 1001 & sleep 1002\n")
            let late = try await stack.muster("up", "-d", "s.yaml")
            #expect(late.status == 1 && late.output.contains("the task migrate failed: it did not end within 3s"), "\(late.output)")
            #expect(await eventually(.seconds(5)) { stack.processes.count == 4 }, "\(stack.processes)")
            // Mended, it is asked for again by a person.
            try stack.put("migration", "echo done >> migrated\n")
            try await stack.up()
            #expect(try await stack.row("web/1").state == "ready")
            #expect(Files.text(stack.folder + "/runs") == "run\nrun\nrun\n")
            // A stack is stopped while a task runs.
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }
}
