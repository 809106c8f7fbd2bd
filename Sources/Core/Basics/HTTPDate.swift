private let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
private let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as answers have it; `seconds` are those since 1970, 0 or more.
public func httpDate(seconds: Int64) -> String {
    let text = Array(CalendarTime.render(WallTime(milliseconds: seconds * 1000)).utf8)
    func part(_ start: Int, _ count: Int) -> String { String(decoding: text[start..<start + count], as: UTF8.self) }
    return "\(days[Int(seconds / 86400 % 7)]), \(part(8, 2)) \(months[Int(part(5, 2))! - 1]) \(part(0, 4)) \(part(11, 8)) GMT"
}

/// Reads a date in any of the three forms that RFC 9110 (5.6.7) has a recipient take: `Sun, 06 Nov 1994 08:49:37 GMT`,
/// `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`; nil for anything else. Names have any case (RFC 9111, 4.2);
/// the name of the day is not checked.
public func httpTime(_ text: String) -> WallTime? {
    let words = text.split(separator: " "), single = text.utf8.reduce(0) { $0 + ($1 == 32 ? 1 : 0) } == words.count - 1
    var day: Substring, month: Substring, year: Substring, clock: Substring
    switch words.count {
    case 6 where single && words[5].lowercased() == "gmt" && words[0].hasSuffix(","):
        (day, month, year, clock) = (words[1], words[2], words[3], words[4])
    case 4 where single && words[3].lowercased() == "gmt" && words[0].hasSuffix(","):
        let date = words[1].split(separator: "-", omittingEmptySubsequences: false)
        guard date.count == 3, date[2].utf8.count == 2, let short = UInt8(date[2]) else { return nil }
        (day, month, clock) = (date[0], date[1], words[2])
        // Two digits: of the last century where they would be far ahead.
        year = "\(short < 70 ? 20 : 19)\(date[2])"
    case 5: (day, month, year, clock) = (words[2], words[1], words[4], words[3])
    default: return nil
    }
    guard let number = months.firstIndex(where: { $0.lowercased() == month.lowercased() }), (1...2).contains(day.utf8.count),
        year.utf8.count == 4
    else { return nil }
    let two = { (text: Substring) in text.utf8.count == 1 ? "0\(text)" : String(text) }
    return try? CalendarTime.parse("\(year)-\(two("\(number + 1)"))-\(two(day))T\(clock)Z")
}
