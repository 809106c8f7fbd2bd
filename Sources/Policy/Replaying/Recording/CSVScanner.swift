/// Takes CSV apart as RFC 4180 writes it, from bytes that come in pieces: fields in quotes may hold commas, line ends and doubled quotes;
/// lines end with LF or CR LF; a byte order mark at the start and empty lines are passed over.
///
/// - Complexity: O(bytes), one buffer for the longest row.
struct CSVScanner {
    /// A row longer than this is no row of figures.
    static let rowLimit = 65_536

    private enum Place {
        case fieldStart, plain, quoted
        /// After a quote inside quotes: the field's end, or the first of two.
        case quoteSeen
    }

    private var place = Place.fieldStart
    private var row: [UInt8] = []
    private var ends: [Int] = []
    /// Of the row's first line; and of the byte that is read.
    private var rowLine = 1
    private var line = 1
    private var markSeen = 0
    private var hasReturn = false

    /// One row: its bytes without quotes, where each field ends, and its first line.
    struct Row {
        let bytes: UnsafeRawBufferPointer
        let ends: [Int]
        let line: Int

        func field(_ index: Int) -> UnsafeRawBufferPointer {
            let from = index == 0 ? 0 : ends[index - 1]
            return UnsafeRawBufferPointer(rebasing: bytes[from..<ends[index]])
        }
    }

    mutating func feed(_ bytes: UnsafeRawBufferPointer, _ body: (Row) throws(ReplayFailure) -> Void) throws(ReplayFailure) {
        for byte in bytes { try take(byte, body) }
    }

    /// The last line may lack its end.
    mutating func finish(_ body: (Row) throws(ReplayFailure) -> Void) throws(ReplayFailure) {
        if place == .quoted { throw ReplayFailure(.malformed, line: rowLine, "a quote is opened and never closed") }
        try endRow(body)
    }

    private mutating func take(_ byte: UInt8, _ body: (Row) throws(ReplayFailure) -> Void) throws(ReplayFailure) {
        if markSeen < 3 {
            // EF BB BF at the very start.
            let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
            if byte == mark[markSeen] {
                markSeen += 1
                return
            }
            markSeen = 3
        }
        if hasReturn {
            hasReturn = false
            if byte != 10 { throw ReplayFailure(.malformed, line: line, "a carriage return stands alone: end lines with LF or CR LF") }
        }
        switch (place, byte) {
        case (.quoted, 34): place = .quoteSeen
        case (.quoted, _): keep(byte)
        case (.quoteSeen, 34):
            keep(byte)
            place = .quoted
        case (_, 44):
            ends.append(row.count)
            place = .fieldStart
        case (_, 13): hasReturn = true
        case (_, 10): try endRow(body)
        case (.fieldStart, 34): place = .quoted
        case (.quoteSeen, _):
            throw ReplayFailure(.malformed, line: line, "something follows a closing quote: write a quote inside quotes twice")
        case (_, 34): throw ReplayFailure(.malformed, line: line, "a quote stands inside a field that does not begin with one")
        case (_, _):
            keep(byte)
            place = .plain
        }
        if byte == 10 { line += 1 }
        if place == .fieldStart, row.isEmpty, ends.isEmpty { rowLine = line }
        if row.count > CSVScanner.rowLimit {
            throw ReplayFailure(.malformed, line: rowLine, "the row has more than \(CSVScanner.rowLimit) bytes: is a quote missing?")
        }
    }

    private mutating func keep(_ byte: UInt8) { row.append(byte) }

    private mutating func endRow(_ body: (Row) throws(ReplayFailure) -> Void) throws(ReplayFailure) {
        let isEmpty = row.isEmpty && ends.isEmpty && place == .fieldStart
        place = .fieldStart
        if isEmpty { return }
        ends.append(row.count)
        let found = ends, first = rowLine
        var failure: ReplayFailure?
        row.withUnsafeBytes { bytes in
            do throws(ReplayFailure) { try body(Row(bytes: bytes, ends: found, line: first)) } catch { failure = error }
        }
        row.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
        if let failure { throw failure }
    }
}
