/**
 * What processes have seen, written so that it survives them: a line is with the operating system before `write`
 * returns, so a process killed right afterwards has not lost it. Each incarnation of a process writes files of its
 * own, `<entry>@<process>.<incarnation>`. A line that a kill cut off has no end, and does not count.
 */
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/**
 * - `intended`: ids that a publisher is about to publish, and publishes again if it dies before the acknowledgement;
 * - `acknowledged.events`, `acknowledged.jobs`, ...: labels whose publishing was confirmed;
 * - `rolled-back`: labels published within a transaction that was then rolled back;
 * - `duplicates`: ids whose second publishing was recognised;
 * - `handled.<subscription>`: labels for which a handler has done its work;
 * - `started`, `step-began`, `step-finished`: of the ordered handlers, with the moment before the label.
 */
export type Entry =
  | 'intended'
  | 'acknowledged.events'
  | 'acknowledged.jobs'
  | 'acknowledged.discards'
  | 'acknowledged.users'
  | 'started'
  | 'step-began'
  | 'step-finished'
  | 'rolled-back'
  | 'duplicates'
  | `handled.${string}`

export class Ledger {
  readonly #folder: string
  readonly #writer: string
  readonly #descriptors = new Map<Entry, number>()

  constructor(folder: string, writer: string) {
    this.#folder = folder
    this.#writer = writer
  }

  write(entry: Entry, label: string): void {
    let descriptor = this.#descriptors.get(entry)
    if (descriptor === undefined) {
      descriptor = openSync(join(this.#folder, `${entry}@${this.#writer}`), 'a')
      this.#descriptors.set(entry, descriptor)
    }
    writeSync(descriptor, `${label}\n`)
  }

  /** With the moment, by a clock that all processes of the machine share. */
  writeTimed(entry: Entry, label: string): void {
    this.write(entry, `${process.hrtime.bigint()} ${label}`)
  }

  close(): void {
    for (const descriptor of this.#descriptors.values()) closeSync(descriptor)
    this.#descriptors.clear()
  }
}

/** Everything written as `entry`, by all processes, or by the incarnations of one. */
export function readLedger(folder: string, entry: Entry, writer = ''): string[] {
  const files = readdirSync(folder).filter((name) => name.startsWith(`${entry}@${writer}`))
  return files.flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1))
}

/** What was written with its moment, in the order of time. */
export function readTimedLedger(folder: string, entry: Entry): { readonly at: bigint; readonly label: string }[] {
  const lines = readLedger(folder, entry).map((line) => {
    const space = line.indexOf(' ')
    return { at: BigInt(line.slice(0, space)), label: line.slice(space + 1) }
  })
  return lines.toSorted((one, other) => (one.at < other.at ? -1 : 1))
}
