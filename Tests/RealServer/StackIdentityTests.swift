import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

/// Which stack a verb reaches: by its folder and name, whatever has become of the file; and that not seeing a stack is not its absence.
@Suite(.serialized) struct StackIdentityTests {
    private static func file(_ name: String?, _ seconds: Int = 1000, more: String = "") -> String {
        (name.map { "stack: \($0)\n" } ?? "") + "services:\n  a:\n    command: [sleep, '\(seconds)']\n    grace: 1s\n" + more
    }

    /// Every verb that only speaks to the supervisor works with a file that lacks a variable, is broken, was deleted, or gives the stack
    /// another name than when it was started; and 'down' stops it.
    @Test(arguments: ["variable", "broken", "deleted", "renamed", "folder moved"])
    func stoppingNeedsLessThanStarting(what: String) async throws {
        try await withSmallStack { stack in
            var file = "s.yaml"
            let needy = "    environment: { TOKEN: \"${TOKEN}\" }\n"
            try stack.put(file, Self.file("one", more: what == "variable" ? needy : ""))
            try await stack.up(environment: ["TOKEN": "x"])
            switch what {
            case "broken": try stack.put(file, Self.file("one") + "services: { a: [\n\t!!")
            case "deleted": Files.remove("\(stack.folder)/\(file)")
            case "renamed": try stack.put(file, Self.file("two"))
            case "folder moved":
                try Files.makeFolder(stack.folder + "/new")
                for name in [".muster", "s.yaml"] { rename("\(stack.folder)/\(name)", "\(stack.folder)/new/\(name)") }
                file = "new/s.yaml"
            default: break
            }
            for words in [["ps", file], ["logs", "supervisor", "--stack", file], ["why", "--stack", file], ["scale", "a=2", file]]
            where what != "folder moved" || words[0] != "scale" {
                let (status, output) = try await run(builtProgram("muster"), words, folder: stack.folder)
                #expect(status == 0, "\(what): \(words): \(output)")
            }
            // Where the folder is no more, nothing can be started anew.
            #expect(try await stack.rows(file).count == (what == "folder moved" ? 1 : 2))
            // What the command line gets wrong is told by the supervisor, as status 2.
            let unknown = try await stack.muster("scale", "b=2", file)
            #expect(unknown.status == 2 && unknown.output.contains("the stack has no service 'b'"), "\(unknown.output)")
            let down = try await stack.muster("down", file)
            #expect(down.status == 0 && down.output.contains("one is down"), "\(what): \(down.output)")
            #expect(stack.processes.isEmpty)
        }
    }

    /// Files without a name for their stack are stacks of their own; whoever reaches one that another file has started is told.
    @Test func twoFilesAreTwoStacks() async throws {
        try await withSmallStack { stack in
            let names = ["app.dev.yaml", "app.prod.yaml", "my_app.yaml", "my_api.yaml", "app.yaml"]
            for name in names {
                try stack.put(name, Self.file(nil))
                try await stack.up(name)
            }
            #expect(stack.processes.count == 3 * names.count)
            for name in names.dropLast() {
                #expect(try await stack.muster("down", name).status == 0)
                #expect(try await stack.muster("ps", "app.yaml").status == 0)
            }
            // The same name by another ending: refused. The same name, given: told.
            try stack.put("app.yml", Self.file(nil))
            for verb in ["down", "ps", "up"] {
                let refused = try await stack.muster(verb, "app.yml")
                #expect(refused.status == 1 && refused.output.contains("was started from app.yaml"), "\(verb): \(refused.output)")
            }
            try stack.put("other.yaml", Self.file("app"))
            let told = try await stack.muster("ps", "other.yaml")
            #expect(told.status == 0 && told.output.contains("last started from app.yaml"), "\(told.output)")
            #expect(try await stack.muster("down", "app.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    /// What cannot be seen is not said to be absent.
    @Test func notSeeingIsNotAbsence() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.file("s"))
            // Another user's folder.
            try await stack.up()
            let place = stack.folder + "/.muster"
            if getuid() == 0 {
                // Root sees everything: somebody else looks.
                #expect(chmod(stack.folder, 0o755) == 0)
                let words = ["--reuid", "65534", "--clear-groups", builtProgram("muster")]
                for verb in ["down", "ps", "why"] {
                    let rest = verb == "why" ? ["why", "--stack", "s.yaml"] : [verb, "s.yaml"]
                    let (status, output) = try await run(try systemProgram("setpriv"), words + rest, folder: stack.folder)
                    #expect(
                        status == 1 && output.contains("it cannot be seen") && output.contains("Permission denied"), "\(verb): \(output)")
                }
            }
            // The folder was removed while it ran.
            Files.remove(place)
            let ps = try await stack.muster("ps", "s.yaml")
            #expect(ps.status == 1 && ps.output.contains("its folder") && ps.output.contains("was removed"), "\(ps.output)")
            let up = try await stack.muster("up", "-d", "s.yaml")
            #expect(up.status == 1 && up.output.contains("still runs"), "\(up.output)")
            let down = try await stack.muster("down", "s.yaml")
            #expect(down.status == 0 && down.output.contains("s is down"), "\(down.output)")
            #expect(stack.processes.isEmpty)
            // A file where the folder should be.
            try stack.put(".muster", "")
            let odd = try await stack.muster("down", "s.yaml")
            #expect(odd.status == 1 && odd.output.contains("cannot be seen"), "\(odd.output)")
            Files.remove(place)
            let nothing = try await stack.muster("down", "nothing.yaml")
            #expect(nothing.status == 2 && nothing.output.contains("there is no file 'nothing.yaml'"), "\(nothing.output)")
        }
    }

    /// A folder that is too deep for a socket's path: it is somewhere that only its owner can enter, and found without the environment.
    @Test func aDeepFolderIsReached() async throws {
        try await withSmallStack { stack in
            let deep = stack.folder + "/" + (0..<12).map { "a-long-name-\($0)" }.joined(separator: "/")
            try Files.makeFolder(deep)
            try Files.makeFolder(stack.folder + "/run", mode: 0o700)
            try Files.replace(deep + "/s.yaml", with: Array(Self.file("s").utf8))
            for runtime in [stack.folder + "/run", ""] {
                #expect(try await stack.muster("up", "-d", deep + "/s.yaml", environment: ["XDG_RUNTIME_DIR": runtime]).status == 0)
                let socket = try required(Files.text(deep + "/.muster/s/socket")?.split(separator: "\n").first).description
                var info = stat()
                #expect(stat(Files.folder(of: socket), &info) == 0 && info.st_uid == getuid() && info.st_mode & 0o077 == 0, "\(socket)")
                #expect(try await stack.muster("ps", deep + "/s.yaml").status == 0)
                #expect(try await stack.muster("down", deep + "/s.yaml").status == 0)
            }
        }
    }

    /// A port that another process listens on is told before anything starts, whatever either has for `threads`; a replacement goes on.
    @Test(arguments: [(1, 2), (2, 1), (2, 2)])
    func aTakenPortIsTold(threads: (Int, Int)) async throws {
        try await withSmallStack { stack in
            let admin = TestPorts.server()
            for (name, count, keys) in [("one", threads.0, "admin: 127.0.0.1:\(admin)"), ("two", threads.1, "limits: {}")] {
                try stack.put(
                    "\(name).yaml",
                    "stack: \(name)\nservices:\n" + (try stack.service(environment: "WHO: \(name)"))
                        + stack.gateway("web", "threads: \(count)", keys))
            }
            try await stack.up("one.yaml")
            let second = try await stack.muster("up", "-d", "two.yaml")
            #expect(second.status == 1 && second.output.contains("gateway.listen: port \(stack.port) is in use"), "\(second.output)")
            #expect(!second.output.contains("ready: web/1"))
            for _ in 0..<10 { #expect(try await stack.get().text == "one") }
            // The gateway alone on it, and on the admin port, with either for `listen`.
            for (listen, port) in [
                ("127.0.0.1:\(stack.port)", stack.port), ("0.0.0.0:\(stack.port)", stack.port), ("127.0.0.1:\(admin)", admin),
            ] {
                try stack.put(
                    "g.yaml", "gateway:\n  listen: \(listen)\n  threads: \(threads.1)\n  routes: [{ path: /, answer: { body: x } }]\n")
                let alone = try await stack.muster("gateway", "g.yaml")
                #expect(alone.status == 1 && alone.output.contains("\(port)") && alone.output.contains("in use"), "\(alone.output)")
            }
            // A store's, too.
            try stack.put("three.yaml", "stack: three\nstores: { x: { redis: { role: state, port: \(stack.port) } } }\n")
            let store = try await stack.muster("up", "-d", "three.yaml")
            #expect(store.status == 1 && store.output.contains("stores.x.redis.port: port \(stack.port) is in use"), "\(store.output)")
            #expect(try await stack.muster("down", "one.yaml").status == 0)
        }
    }
}
