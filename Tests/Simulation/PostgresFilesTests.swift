import Basics
import Glibc
import PostgresFailover
import TestSupport
import Testing

@testable import PostgresStores

/// What is read of a node without asking it.
@Suite struct PostgresFilesTests {
    private func control(version: UInt32 = 1300, state: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 512)
        func put(_ value: UInt64, _ place: Int, _ size: Int) {
            for index in 0..<size { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
        put(UInt64(version), 8, 4)
        put(UInt64(state), 16, 4)
        put(0x2_0000_0028, 32, 8)
        put(7, 48, 4)
        return bytes
    }

    @Test func aControlFileTellsHowAServerEnded() throws {
        let clean = try #require(ControlFile(control(state: 1)))
        #expect(clean.isShutDown && !clean.isStandbyInterrupted && clean.checkpoint.description == "2/28" && clean.timeline == 7)
        #expect(ControlFile(control(state: 2))?.isShutDown == true)
        #expect(ControlFile(control(state: 6))?.isShutDown == false)
        #expect(ControlFile(control(state: 5))?.isStandbyInterrupted == true)
        // No guess about what is not known.
        #expect(ControlFile(control(state: 9)) == nil)
        #expect(ControlFile(control(version: 900, state: 1)) == nil)
        #expect(ControlFile([1, 2, 3]) == nil && ControlFile(in: "/nowhere") == nil)
    }

    @Test func aHistoryTellsWhereATimelineEnded() {
        let history = TimelineHistory(
            "1\t0/4028A20\tno recovery target specified\n\n# a word\n2\t0/40EA1C0\tno recovery target specified\n")
        #expect(history.end(of: 1)?.description == "0/4028A20" && history.fork?.description == "0/40EA1C0")
        #expect(history.end(of: 3) == nil && TimelineHistory("").fork == nil)
        #expect(TimelineHistory.file(of: 0x1F) == "0000001F.history")
    }

    @Test func commitsAreCountedInAStatistic() {
        let text = """
            WAL statistics between 0/3000028 and 0/3000200:
            Type                                           N      (%)          Record size      (%)
            Transaction/COMMIT                            12 ( 92.31)                  408 ( 92.00)
            Transaction/ABORT                              1 (  7.69)                   34 (  8.00)
            Total                                         13                           442 [92%]
            pg_waldump: error: error in WAL record at 0/3000180: invalid record length at 0/3000200: wanted 24, got 0
            """
        #expect(PostgresKeeper.commits(in: text, isDone: false) == 12)
        #expect(PostgresKeeper.commits(in: "pg_waldump: error: could not find a valid record after 0/3000028", isDone: false) == 0)
        #expect(PostgresKeeper.commits(in: "pg_waldump: error: could not open directory", isDone: false) == nil)
        #expect(PostgresKeeper.commits(in: "", isDone: true) == 0)
    }

    /// Backends outlive a killed server in its data folder: whoever works there is ended, and nobody else.
    @Test func everyProcessInAFolderIsEnded() async throws {
        try await withFolder { folder in
            let place = Files.absolute(folder)
            try Files.makeFolder(folder + "/other")
            let inside = try (0..<3).map { try Child(try systemProgram("sleep"), ["1000"], log: "\(folder)/log-\($0)", folder: folder) }
            let outside = try Child(try systemProgram("sleep"), ["1000"], log: folder + "/log", folder: folder + "/other")
            #expect(try await eventually { try FolderFence.processes(in: place).count == 3 })
            #expect(FolderFence.end(folder) == nil)
            #expect(try FolderFence.processes(in: place).isEmpty)
            for child in inside { #expect(await child.end(within: .seconds(5)) != nil) }
            #expect(try FolderFence.processes(in: place + "/other").count == 1)
            await outside.destroy()
        }
    }
}
