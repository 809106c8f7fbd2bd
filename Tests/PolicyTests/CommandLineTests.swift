import Basics
import StackModel
import Testing

@testable import StackFile

/// A command as one line: split as a POSIX shell splits it, with nothing else of a shell.
@Suite struct CommandLineTests {
    private func words(_ line: String) throws -> [String] {
        try CommandLine(line: line) { name in
            switch name {
            case "PORT", "INSTANCE_ID": .given
            case "SECRET": .refused("a secret")
            default: ["ONE": "1", "MANY": " a  b ", "EMPTY": "", "HOME": "/home/x y"][name].map(CommandLine.Variable.value) ?? .unset
            }
        }.words { ["PORT": "8001", "INSTANCE_ID": "3"][$0] }
    }

    @Test(arguments: [
        ("a b  c", ["a", "b", "c"]), ("a 'b c' \"d e\"", ["a", "b c", "d e"]), ("a'b'\"c\"d", ["abcd"]), ("a '' \"\"", ["a", "", ""]),
        ("a\\ b c\\\\d", ["a b", "c\\d"]), ("a \"x\\\"y\\$z\\q\"", ["a", "x\"y$z\\q"]), ("a 'x\\y $ONE $$'", ["a", "x\\y $ONE $$"]),
        ("a $ONE x${ONE}y", ["a", "1", "x1y"]), ("a $MANY b", ["a", "a", "b", "b"]), ("a x$MANY", ["a", "x", "a", "b"]),
        ("a x${MANY}y", ["a", "x", "a", "b", "y"]), ("a \"$MANY\"", ["a", " a  b "]), ("a $EMPTY \"$EMPTY\"", ["a", ""]),
        ("a ${NOT:-x y} \"${NOT:-x y}\"", ["a", "x", "y", "x y"]), ("a $$ONE \\$ONE", ["a", "$ONE", "$ONE"]),
        ("a $1 x$ $!", ["a", "$1", "x$", "$!"]),
        ("a --bind 0.0.0.0:$PORT", ["a", "--bind", "0.0.0.0:8001"]), ("a ${BIND:-0.0.0.0:$PORT}", ["a", "0.0.0.0:8001"]),
        ("$HOME/x", ["/home/x", "y/x"]), ("\"$HOME\"/x $INSTANCE_ID", ["/home/x y/x", "3"]), ("a \\\n  b\n", ["a", "b"]),
        ("a *.txt [x] ? {a,b} ~ !x %y^z", ["a", "*.txt", "[x]", "?", "{a,b}", "~", "!x", "%y^z"]), ("a x#y '#z'", ["a", "x#y", "#z"]),
        ("a \"q\\\nr\"", ["a", "qr"]), ("é 'ü'ö\u{301}", ["é", "üö\u{301}"]),
    ])
    func aLineIsSplit(line: String, expected: [String]) throws {
        #expect(try words(line) == expected)
    }

    /// Each is refused with words that name what is meant.
    @Test(arguments: [
        ("", "a program is needed"), ("  \n", "a program is needed"), ("''", "a program is needed"), ("$EMPTY", "a program is needed"),
        ("a | b", "'|' is for a shell"), ("a && b", "'&' is for a shell"), ("a > log", "'>' is for a shell"),
        ("a; b", "';' is for a shell"),
        ("a $(date)", "'$(' is for a shell"), ("a \"$(date)\"", "'$(' is for a shell"), ("a `date`", "'`' is for a shell"),
        ("a \"`date`\"", "'`' is for a shell"),
        ("a http://x/?a=1&b=2", "'&' is for a shell"), ("a 'b", "a ' without"), ("a \"b", "a \" without"), ("a \\", "backslash"),
        ("a\nb", "a second line"), ("a # b", "comment"), ("A=1 b", "under 'environment'"), ("a $NOT", "NOT is not set"), ("a ${", "'${'"),
        ("a ${NOT:?x}", "neither"), ("a $SECRET", "a secret"), ("$PORT", "program itself"), ("a ${NOT:-\"x\"}", "quotes"),
    ])
    func whatAShellWouldDoIsRefused(line: String, words expected: String) {
        let failure = #expect(throws: Interpolation.Failure.self) { try words(line) }
        #expect(failure?.reason.contains(expected) == true, "\(failure?.reason ?? "")")
    }

    @Test func whatUnfoldsToMoreThanAProgramGetsIsRefused() {
        let long = String(repeating: "x", count: 1000)
        let line = "a " + String(repeating: "$LONG ", count: 200)
        #expect(throws: Interpolation.Failure.self) { try CommandLine(line: line) { _ in .value(long) } }
        #expect(throws: Interpolation.Failure.self) { try CommandLine(line: "a '" + String(repeating: long, count: 200)) { _ in .unset } }
        #expect(throws: Interpolation.Failure.self) { try Interpolation.expand(String(repeating: "$LONG", count: 200)) { _ in long } }
    }

    private func command(_ keys: String) throws -> [String] {
        let stack = try Stack.read(Array("services:\n  a:\n    \(keys)\n".utf8), path: "t.yaml") { ["SET": "s t"][$0] }
        return stack.services[0].process.command.words { ["PORT": "8001"][$0] }
    }

    @Test func aListIsTakenAsItStandsAndALineIsFilled() throws {
        #expect(try command("command: [x, $SET, 'a b', \"${SET}\"]") == ["x", "$SET", "a b", "${SET}"])
        #expect(try command("command: x $SET \"$SET\"") == ["x", "s", "t", "s t"])
        #expect(try command("command: x $A\n    environment: { A: \"$SET!\", SET: no }") == ["x", "s", "t!"])
        #expect(try command("command: x $PORT\n    environment: { PORT: 9 }") == ["x", "9"])
        #expect(try command("command: x $PORT\n    http: {}") == ["x", "8001"])
        #expect(try command("command: >-\n      x\n      y") == ["x", "y"])
    }
}

/// Dotenv files, as Compose reads them.
@Suite struct DotenvTests {
    private func read(_ text: String) -> Dotenv { Dotenv(Array(text.utf8), file: "f.env") { ["HOME": "/h", "A": "outside"][$0] } }
    private func values(_ text: String) -> [String] {
        let found = read(text)
        return found.problems.map(\.description) + found.entries.map { "\($0.name)=\($0.value)" }
    }

    @Test(arguments: [
        ("B=1\nC= two words \n", ["B=1", "C=two words"]), ("# c\n\n  B=1 # c\nC=1# no\n", ["B=1", "C=1# no"]),
        ("export B=1\nexport=2", ["B=1", "export=2"]), ("B: 1\nC = 2\r\nD=\r\n", ["B=1", "C=2", "D="]), ("B=#x\nC= # x", ["B=", "C="]),
        ("B='$A # x' # c\nC=\"x # $HOME\"\n", ["B=$A # x", "C=x # /h"]), ("B=\"a\\nb\\t\\\"\\\\\\$A\\q\"", ["B=a\nb\t\"\\$A\\q"]),
        ("B='it\\'s'\nC='a\nb'\nD=\"x\r\ny\"", ["B=it's", "C=a\nb", "D=x\ny"]), ("B=1\nC=${B}2$B\nD=$$B", ["B=1", "C=121", "D=$B"]),
        ("A=inside\nB=$A", ["A=inside", "B=outside"]), ("B=${NOT:-d}", ["B=d"]), ("\u{FEFF}B=1", ["B=1"]), ("B=a=b:c", ["B=a=b:c"]),
        ("B=1\nB=2", ["B=1", "B=2"]), ("B=\"\"\nC=''", ["B=", "C="]), ("B=a'b'\"c\"", ["B=a'b'\"c\""]),
    ])
    func aFileIsRead(text: String, expected: [String]) { #expect(values(text) == expected) }

    @Test(arguments: [
        ("B=1\n  C D=2", "f.env:2:3: expected NAME=value"), ("B", "f.env:1:1: expected NAME=value"), ("-B=1", "f.env:1:1: expected"),
        ("B=$NOT", "f.env:1:3: B: NOT is not set"), ("A=1\nB=\"x\nC=2\n", "f.env:2:3: B: a \" without"),
        ("B='x' y", "f.env:1:3: B: only a comment"),
        ("B=1\nC=\u{0}", "f.env:2:3: a NUL"), ("B=${", "f.env:1:3: B: '${'"), ("export", "f.env:1:1: expected"),
    ])
    func whatIsWrongHasItsPlace(text: String, expected: String) {
        #expect(values(text).first?.hasPrefix(expected) == true, "\(values(text))")
    }

    @Test func bytesThatAreNoTextHaveTheirPlace() {
        let found = Dotenv(Array("B=1\nC=x".utf8) + [0xFF], file: "f.env") { _ in nil }
        #expect(found.problems.map(\.description) == ["f.env:2:4: not UTF-8"])
    }

    /// Each line doubles the one before.
    @Test func whatUnfoldsIsBounded() {
        let lines = (1...60).map { "V\($0)=$V\($0 - 1)$V\($0 - 1)" }
        #expect(read("V0=xxxxxxxx\n" + lines.joined(separator: "\n")).problems.first?.message.contains("longer than 128 KiB") == true)
        let many = (0..<20).map { "W\($0)=$V" }.joined(separator: "\n")
        #expect(
            read("V=" + String(repeating: "x", count: 100_000) + "\n" + many).problems.first?.message.contains("larger than 1 MiB") == true)
    }
}

/// `env-file`, `.env`, `working-directory` and `user`, as the stack file's reader takes them.
@Suite struct ProcessReaderTests {
    private let files = StackFiles(
        read: { path, _ in
            switch path {
            case "d/.env": .bytes(Array("DOT=dot\nSET=no\n".utf8))
            case "d/a.env": .bytes(Array("A=1\nB=$DOT$SET\n".utf8))
            case "d/b.env": .bytes(Array("A=2\nPORT=1\n".utf8))
            case "d/bad.env": .bytes(Array("A=1\nB=$NOT\n".utf8))
            case "/locked": .unreadable("open /locked: Permission denied")
            default: .absent
            }
        },
        flaw: { need in
            switch need {
            case .folder("d/app"), .user("www"): nil
            case .folder(let path): "no folder '\(path)'"
            case .user(let name): "no user '\(name)'"
            case .secret(let path): "no secret '\(path)'"
            }
        })

    private func read(_ keys: String) throws -> Stack {
        try Stack.read(Array("services:\n  a:\n    command: x\n    \(keys)\n".utf8), path: "d/t.yaml", files: files) { ["SET": "set"][$0] }
    }

    @Test func laterVariablesWin() throws {
        let stack = try read("env-file: [a.env, \"${NOT:-b}.env\"]\n    environment: { B: $DOT, C: $SET }")
        #expect(stack.services[0].process.environment.map { "\($0.name)=\($0.value)" } == ["A=2", "B=dot", "PORT=1", "C=set"])
        #expect(try read("env-file: a.env").services[0].process.environment.map(\.value) == ["1", "dotset"])
    }

    @Test func foldersAndUsers() throws {
        let process = try read("working-directory: app\n    user: www").services[0].process
        #expect(process.workingDirectory == "app" && process.user == "www")
    }

    @Test(arguments: [
        ("env-file: c.env", "d/t.yaml:4:15: services.a.env-file: there is no file 'd/c.env'"),
        ("env-file: /locked", "d/t.yaml:4:15: services.a.env-file: open /locked: Permission denied"),
        ("env-file: bad.env", "d/bad.env:2:3: B: NOT is not set"),
        ("env-file: { a: b }", "d/t.yaml:4:15: services.a.env-file: expected a text"),
        ("env-file: ''", "d/t.yaml:4:15: services.a.env-file: the path of a file is needed"),
        ("env-file: b.env\n    http: {}", "d/b.env:2:1: PORT, for services.a: each replica"),
        ("working-directory: nowhere", "d/t.yaml:4:24: services.a.working-directory: no folder 'd/nowhere'"),
        ("user: nobody9", "d/t.yaml:4:11: services.a.user: no user 'nobody9'"),
        ("user: [a]", "d/t.yaml:4:11: services.a.user: expected a text"),
        ("environment: { A: $NOT }", "d/t.yaml:4:20: services.a.environment.A: NOT is not set"),
    ])
    func whatIsWrongIsTold(keys: String, expected: String) {
        let problems = #expect(throws: Problems.self) { try read(keys) }
        #expect(problems?.description.contains(expected) == true, "\(problems?.description ?? "")")
    }
}

/// Secrets, checks, restart, fixed ports, tasks, dependencies, profiles, extensions and merge keys, as the stack file's reader takes them.
@Suite struct ServiceKeyReaderTests {
    private let files = StackFiles(
        read: { _, _ in .absent },
        flaw: { need in if case .secret(let path) = need, path != "d/key" { "there is no secret in '\(path)'" } else { nil } })

    private func read(_ text: String, _ environment: [String: String] = [:]) throws -> Stack {
        try Stack.read(Array((text + "\n").utf8), path: "d/t.yaml", files: files) { environment[$0] }
    }

    private func service(_ keys: String...) throws -> ServiceSpec {
        try read("services:\n  a:\n    command: x\n" + keys.map { "    \($0)\n" }.joined()).services[0]
    }

    @Test func whatIsDeclaredIsRead() throws {
        #expect(try service("secrets: { DB: { file: key }, B: key }").process.secrets.map(\.variable) == ["DB_FILE", "B_FILE"])
        let check = try #require(try service("check: { command: \"y $PORT 'a b'\", every: 2s, timeout: 1s }").check)
        #expect(check.command?.words { _ in "7" } == ["y", "7", "a b"] && check.interval == .seconds(2) && check.timeout == .seconds(1))
        #expect(
            try service("check: { tcp: 5000 }").check == CheckSpec(command: nil, port: 5000, interval: .seconds(1), timeout: .seconds(5)))
        #expect(try service("check: { tcp: PORT }").check?.port == nil)
        #expect(try service("restart: on-failure").restart == .onFailure && service().restart == .always)
        let fixed = try service("http: { port: 8000, fixed: true }")
        #expect(fixed.isExclusive && fixed.refusal(of: 2) != nil && fixed.refusal(of: 1) == nil)
        #expect(try service("http: { socket: true }").http?.hasSocket == true && service("http: {}").http?.hasSocket == false)
        let socket = try read("services: { a: { command: \"x $SOCKET\", http: { socket: true } } }").services[0].process.command
        #expect(socket.words { ["SOCKET": "/s/1.sock"][$0] } == ["x", "/s/1.sock"])
        let secret = try read("services: { a: { command: \"x $DB_FILE\", secrets: { DB: key } } }").services[0].process.command
        #expect(secret.words { ["DB_FILE": "/s/key"][$0] } == ["x", "/s/key"])
    }

    @Test func tasksAndDependencies() throws {
        let stack = try read(
            """
            tasks: { migrate: { command: m up, timeout: 30s, depends-on: [db] } }
            services: { web: { command: w, depends-on: [migrate, state] }, db: { command: d } }
            stores: { state: { redis: { role: state } } }
            """)
        #expect(
            stack.task("migrate")?.timeLimit == .seconds(30) && stack.task("migrate")?.process.command.words { _ in nil } == ["m", "up"])
        #expect(stack.dependencies == ["web": ["migrate", "state"], "migrate": ["db"]])
    }

    private static let wrong: [(String, String)] = [
        ("a: { command: x, secrets: { DB: gone } }", "services.a.secrets.DB: there is no secret in 'd/gone'"),
        ("a: { command: x, secrets: { 'D B': key } }", "'D B' is no name of an environment variable"),
        ("a: { command: x, secrets: { DB: key }, environment: { DB_FILE: y } }", "DB_FILE is declared as a variable, too"),
        ("a: { command: x, secrets: [DB] }", "services.a.secrets: expected names"),
        ("a: { command: x, check: { tcp: 1 }, http: {} }", "a service with http is asked by http"),
        ("a: { command: x, check: {} }", "one of 'command' and 'tcp'"),
        ("a: { command: x, check: { tcp: 1, command: y } }", "one of 'command' and"),
        ("a: { command: x, check: { tcp: 0 } }", "expected a port from 1 to 65535"),
        ("a: { command: x, check: { tcp: x } }", "expected a port"),
        ("a: { command: x, check: { command: 'y |' } }", "services.a.check.command: '|' is for a shell"),
        ("a: { command: x, check: { command: y, every: 1ms } }", "at least 100ms"),
        ("a: { command: x, check: y }", "services.a.check: expected how"),
        ("a: { command: x, restart: unless-stopped }", "'unless-stopped' is none of always, on-failure, never"),
        ("a: { command: x, restart: never, replicas: 1..3, resources: { cpu: 1 }, scale: { cpu: 50% } }", "started again always"),
        ("a: { command: x, http: { fixed: true } }", "'port' says which port"),
        ("a: { command: x, replicas: 2, http: { port: 9, fixed: true } }", "2 replicas cannot listen on one port"),
        (
            "a: { command: x, http: { port: 9, fixed: true } }\n  b: { command: x, http: { port: 9, fixed: true } }",
            "port 9 is taken by services.a"
        ),
        (
            "a: { command: x, http: { port: 9, fixed: true } }\n  b: { command: x, http: { port: 9, fixed: true } }\n"
                + "  c: { command: x, http: { port: 9, fixed: true } }", "services.c.http.fixed: port 9 is taken by services.a"
        ),
        ("a: { command: x, http: { port: 9, fixed: maybe } }", "expected true or false"),
        (
            "a: { command: x, depends-on: [b] }\n  b: { command: x, depends-on: c }\n  c: { command: x, depends-on: a }",
            "a waits for b waits for c waits for a"
        ),
        ("a: { command: x, depends-on: a }", "a cycle, in which nothing could be started: a waits for a"),
        ("a: { command: x, depends-on: [web] }\n  wep: { command: x }", "no service and no task 'web'; did you mean 'wep'?"),
        ("a: { command: x, depends-on: { b: c } }", "services.a.depends-on: expected"),
        ("a: { command: x, depends-on: b }\n  b: { command: x, profiles: [dev] }", "'b' is left out: none of its profiles (dev)"),
        ("a: { command: x }\ntasks: { a: { command: y } }", "'a' is a service's or a store's name already"),
        ("a: { command: x }\ntasks: { t: { command: y, timeout: 5 } }", "tasks.t.timeout: expected a time"),
        ("a: { command: x }\ntasks: { t: { command: y, replicas: 2 } }", "unknown key 'replicas' in tasks.t"),
        ("a: { command: x }\ntasks: { t: y }", "tasks.t: expected a task"), ("a: { command: x, y-: 1 }", "unknown key 'y-'"),
        ("a: { <<: [1], command: x }", "'<<' takes the keys of a group"), ("a: { <<: x, command: x }", "'<<' takes the keys of a group"),
        ("a: { command: x, http: { x-a: 1 } }", "unknown key 'x-a'"),
    ]

    @Test(arguments: wrong) func whatIsWrongIsToldInALine(keys: String, expected: String) {
        let problems = #expect(throws: Problems.self) { try read("services:\n  \(keys)") }
        let found = problems?.list.filter { $0.message.contains(expected) } ?? []
        #expect(found.count == 1 && found[0].line >= 2 && found[0].column >= 1, "\(problems?.description ?? "")")
    }

    /// The walk for a cycle and for what is held is linear: a ladder in which each waits for both of the rung below has 2 to the 2000 ways.
    @Test func aLadderOfDependenciesIsReadAtOnce() throws {
        let rungs = (1..<2000).map {
            "  a\($0): { command: x, depends-on: [a\($0 - 1), b\($0 - 1)] }\n  b\($0): { command: x, depends-on: [a\($0 - 1)] }"
        }
        #expect(try read("services:\n  a0: { command: x }\n  b0: { command: x }\n" + rungs.joined(separator: "\n")).services.count == 4000)
    }

    @Test func extensionsAnchorsAndMergeKeys() throws {
        let stack = try read(
            """
            x-common: &common
              grace: 3s
              environment: &environment { A: 1, B: 2 }
            x-more: &more { grace: 4s, replicas: 2 }
            services:
              a: { <<: *common, command: x, x-note: anything }
              b:
                <<: [*common, *more]
                command: x
                environment: { <<: *environment, B: 3 }
            """)
        #expect(stack.services.map(\.grace) == [.seconds(3), .seconds(3)] && stack.services[1].replicas == 2...2)
        #expect(stack.services[1].process.environment.map(\.value).sorted() == ["1", "3"])
        #expect(stack.services[0].process.environment.map(\.value) == ["1", "2"])
    }

    /// Verbs wait as long as the file lets the stack take, and half a minute more.
    @Test func whatAStackMayTakeIsWaitedFor() throws {
        let small = StackTimes(try read("services: { a: { command: x, grace: 1s, start: 1s } }"))
        #expect(small.start == .seconds(1) && small.stop == .seconds(2))
        #expect(small.downLimit == .seconds(120) && small.quietLimit == .seconds(300))
        let long = StackTimes(
            try read(
                """
                stores: { s: { redis: { role: state } } }
                tasks: { t: { command: x, grace: 9s, timeout: 1h } }
                services: { a: { command: x, grace: 10m, start: 20m }, b: { command: x } }
                gateway: { listen: 8080, routes: [{ path: /, backends: ["127.0.0.1:1"] }] }
                """))
        // The drain, the slowest service's grace twice, the store's twice.
        #expect(long.start == .seconds(7200) && long.stop == .seconds(10 + 1200 + 20))
        #expect(long.downLimit == .seconds(1260) && long.quietLimit == .seconds(7200 + 1230 + 30))
        // Neither a file nor a supervisor has anybody wait for ever.
        let endless = StackTimes(try read("services: { a: { command: x, grace: 3000d, start: 3000d } }"))
        let told = StackTimes(startSeconds: .max, stopSeconds: .min)
        #expect([endless.downLimit, endless.quietLimit, told.quietLimit].allSatisfy { $0 == StackTimes.longest } && told.stop == .zero)
    }

    @Test func profiles() throws {
        let text = """
            services:
              web: { command: w, http: {} }
              tool: { command: t, http: {}, profiles: [dev, ops], env-file: gone.env }
            tasks: { seed: { command: s, profiles: dev } }
            gateway:
              listen: 8010
              routes: [{ path: /, service: web }, { path: /tool, service: tool }]
            """
        let plain = try read(text)
        #expect(plain.services.map(\.name) == ["web"] && plain.tasks.isEmpty && plain.gateway?.routes.count == 1)
        let dev = try read(text.replacing(", env-file: gone.env", with: ""), ["MUSTER_PROFILES": "x, dev"])
        #expect(dev.services.count == 2 && dev.tasks.count == 1 && dev.gateway?.routes.count == 2)
        #expect(throws: Problems.self) { try read(text, ["MUSTER_PROFILES": "ops"]) }
    }
}
