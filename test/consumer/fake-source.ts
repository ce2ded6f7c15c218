import { setImmediate } from 'node:timers/promises'
import type {
  Admission,
  AdmissionDemand,
  BreakerReport,
  Engine,
  FinishedMessages,
  Grant,
  LeaseId,
  SettledException,
  Settlement,
  Source,
  SourceOptions,
  StoredMessage,
} from '../../src/engine.ts'

export interface Pull {
  readonly messagesMax: number
  readonly bytesMax: number
}

/** A source that does as it is told: hands out what `offer` was given, and keeps what it is told about it. */
export class FakeSource implements Source {
  readonly pulls: Pull[] = []
  readonly settlements: Settlement[][] = []
  closes = 0
  leasedUntilMs = Number.POSITIVE_INFINITY
  options: SourceOptions | undefined
  /** Answers to the next `settle` calls; afterwards they succeed. */
  readonly settleAnswers: (() => Promise<readonly LeaseId[]>)[] = []
  /** Answers to the next `pull` calls; afterwards they hand out what was offered. */
  readonly pullAnswers: (() => Promise<readonly Grant[]>)[] = []
  /** What `admit` was asked and told. */
  readonly admissions: {
    readonly demands: readonly AdmissionDemand[]
    readonly finished: readonly FinishedMessages[]
  }[] = []
  /** Admits everything at once unless the test says otherwise. */
  answerAdmit: Source['admit'] = async (demands) =>
    demands.map(({ starts }) => ({ startsInMs: Array.from({ length: starts }, () => 0), againInMs: 0 }))
  readonly breakerReports: (BreakerReport | undefined)[] = []
  /** By lease and offset: `'3/7'`. */
  readonly recordedSteps = new Map<string, Map<string, string>>()
  /** What the next transactions come to; afterwards they commit. */
  readonly transactAnswers: ('committed' | 'fenced')[] = []
  /** What `close` waits for. */
  closing: Promise<void> = Promise.resolve()
  #offered: Grant[] = []
  #wake: (() => void) | undefined

  /** Makes grants available: all of them to the pull under way, or to the next one. */
  offer(...grants: Grant[]): void {
    this.#offered.push(...grants)
    this.#wake?.()
  }

  lose(leases: readonly LeaseId[] | 'all', reason = 'the session ran out'): void {
    this.options?.onLeasesLost(leases, reason)
  }

  async pull(limits: Pull, signal: AbortSignal): Promise<readonly Grant[]> {
    this.pulls.push(limits)
    const answer = this.pullAnswers.shift()
    if (answer !== undefined) return answer()
    while (this.#offered.length === 0 && !signal.aborted) await this.#offer(signal)
    return this.#offered.splice(0)
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    this.settlements.push([...settlements])
    return (await this.settleAnswers.shift()?.()) ?? []
  }

  async admit(
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    this.admissions.push({ demands, finished })
    return this.answerAdmit(demands, finished)
  }

  async reportBreaker(report: BreakerReport | undefined): Promise<void> {
    this.breakerReports.push(report)
  }

  async steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    return this.recordedSteps.get(`${lease}/${offset}`) ?? new Map()
  }

  async recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void> {
    const place = `${lease}/${offset}`
    this.recordedSteps.set(place, (this.recordedSteps.get(place) ?? new Map()).set(name, result))
  }

  async transact(
    _lease: LeaseId,
    _offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<'committed' | 'fenced'> {
    await work('a transaction')
    return this.transactAnswers.shift() ?? 'committed'
  }

  cancel(lease: LeaseId, offset: number): void {
    this.options?.onCancelled(lease, offset)
  }

  crowd(...partitions: number[]): void {
    this.options?.onSurplus(partitions)
  }

  async close(): Promise<void> {
    this.closes++
    await this.closing
  }

  /** All acknowledged offsets so far, in rising order. */
  acked(): number[] {
    const offsets = this.settlements.flat().flatMap(({ acked }) => offsetsIn(acked))
    return offsets.sort((one, other) => one - other)
  }

  /** All exceptions so far. */
  exceptions(): SettledException[] {
    return this.settlements.flat().flatMap(({ exceptions }) => exceptions)
  }

  /** All exceptions so far, in short: `['7 retry', '8 dead invalid', '9 release', '10 park']`. */
  verdicts(): string[] {
    return this.exceptions().map(verdictOf)
  }

  /** Those of the last settlement call. */
  lastVerdicts(): string[] {
    return (this.settlements.at(-1) ?? []).flatMap(({ exceptions }) => exceptions).map(verdictOf)
  }

  /** What set-aside messages wait for, by offset. */
  parks(): Map<number, number | 'chain' | 'freed'> {
    const parks = this.exceptions().flatMap((exception) => (exception.kind === 'park' ? exception : []))
    return new Map(parks.map(({ offset, until }) => [offset, until]))
  }

  #offer(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
  }
}

function verdictOf(exception: SettledException): string {
  const { offset, kind } = exception
  return kind === 'dead' ? `${offset} dead ${exception.reason}` : `${offset} ${kind}`
}

/** The part of an engine that a consumer uses. */
export function engineOf(source: FakeSource, opening: Promise<void> = Promise.resolve()): Engine {
  const engine: Pick<Engine, 'openSource'> = {
    async openSource(options) {
      await opening
      source.options = options
      return source
    },
  }
  return engine as Engine
}

export function offsetsIn(ranges: readonly number[]): number[] {
  const offsets: number[] = []
  for (let range = 0; range < ranges.length; range += 2) {
    for (let offset = ranges[range]!; offset < ranges[range + 1]!; offset++) offsets.push(offset)
  }
  return offsets
}

/** A grant of the messages with these offsets; its lease has the number of the first one unless told otherwise. */
export function grantOf(offsets: readonly number[], changes: Partial<Grant> = {}): Grant {
  return {
    lease: offsets[0] ?? 0,
    partition: 0,
    messages: offsets.map((offset) => messageAt(offset)),
    attempt: 1,
    setAside: false,
    crashes: 0,
    isolated: false,
    failures: [],
    bytes: 100 * offsets.length,
    ...changes,
  }
}

export function messageAt(offset: number, changes: Partial<StoredMessage> = {}): StoredMessage {
  const event = { specversion: '1.0', id: `id-${offset}`, source: 'test', type: 't', time: '', data: offset } as const
  return { offset, event: Object.freeze(event), ...changes }
}

/** A grant of messages with these keys, from offset `from` on. */
export function keyedGrant(from: number, keys: readonly (string | undefined)[], changes: Partial<Grant> = {}): Grant {
  const messages = keys.map((key, index) => {
    const { event } = messageAt(from + index)
    return messageAt(from + index, { event: key === undefined ? event : { ...event, subject: key } })
  })
  return grantOf(
    keys.map((_, index) => from + index),
    { messages, ...changes },
  )
}

/** The offsets from `from` up to, not including, `to`. */
export function offsets(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index)
}

/** Lets everything run that does not wait for time or for the test. */
export async function settleDown(): Promise<void> {
  for (let turn = 0; turn < 12; turn++) await setImmediate()
}
