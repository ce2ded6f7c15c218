import assert from 'node:assert/strict'
import type { Grant, LeaseId, SettledException, Source, SourceOptions } from '../../src/engine.ts'
import { failure } from './messages.ts'
import type { TestProcess } from './test-process.ts'

const BYTES_MAX = 64 * 1024 * 1024
const MESSAGES_MAX = 1_000

/** A source, with short ways to pull and to settle whole grants. */
export class TestSource {
  readonly source: Source
  /** What the engine reported as lost, in order. */
  readonly lost: LeaseId[]
  readonly damage: Error[]
  readonly #process: TestProcess
  readonly #stopping = new AbortController()

  private constructor(process: TestProcess, source: Source, lost: LeaseId[], damage: Error[]) {
    this.#process = process
    this.source = source
    this.lost = lost
    this.damage = damage
  }

  static async open(
    process: TestProcess,
    options: Pick<SourceOptions, 'topic' | 'subscription' | 'handlerTimeoutMs'>,
  ): Promise<TestSource> {
    const lost: LeaseId[] = []
    const damage: Error[] = []
    const source = await process.engine.openSource({
      ...options,
      onLeasesLost: (leases) => lost.push(...leases),
      onDamage: (error) => damage.push(error),
    })
    return new TestSource(process, source, lost, damage)
  }

  /** Waits until there is something. */
  pull(limits: { messagesMax?: number; bytesMax?: number } = {}, signal?: AbortSignal): Promise<readonly Grant[]> {
    const { messagesMax = MESSAGES_MAX, bytesMax = BYTES_MAX } = limits
    const stopping = this.#stopping.signal
    return this.source.pull({ messagesMax, bytesMax }, signal ? AbortSignal.any([signal, stopping]) : stopping)
  }

  /** What can be had now; nothing if the engine has nothing after it had its turn. */
  async pullNow(messagesMax?: number): Promise<readonly Grant[]> {
    const giveUp = new AbortController()
    const pulling = this.pull(messagesMax === undefined ? {} : { messagesMax }, giveUp.signal)
    await Promise.race([pulling, this.#process.roundTrip()])
    giveUp.abort()
    return pulling
  }

  /** One grant with one message. */
  async pullOne(): Promise<Grant> {
    const [grant] = await this.pull({ messagesMax: 1 })
    assert.equal(grant?.messages.length, 1)
    return grant
  }

  /** Pulls until nothing more can be had. */
  async pullAll(): Promise<readonly Grant[]> {
    const all: Grant[] = []
    for (let grants = await this.pullNow(); grants.length > 0; grants = await this.pullNow()) all.push(...grants)
    return all
  }

  /** Pulls and acknowledges until nothing more can be had: for what is granted one at a time. */
  async drain(): Promise<readonly Grant[]> {
    const all: Grant[] = []
    for (let grants = await this.pullNow(); grants.length > 0; grants = await this.pullNow()) {
      assert.deepEqual(await this.ack(grants), [])
      all.push(...grants)
    }
    return all
  }

  ack(grants: readonly Grant[]): Promise<readonly LeaseId[]> {
    return this.source.settle(
      grants.map(({ lease, messages }) => ({
        lease,
        acked: [messages[0]!.offset, messages.at(-1)!.offset + 1],
        exceptions: [],
      })),
    )
  }

  retry(grants: readonly Grant[], dueAtMs: number): Promise<readonly LeaseId[]> {
    return this.#except(grants, (offset, grant) => {
      return { offset, kind: 'retry', dueAtMs, failure: failure(grant.attempt, this.#process.world.clock.now()) }
    })
  }

  dead(grants: readonly Grant[]): Promise<readonly LeaseId[]> {
    return this.#except(grants, (offset, grant) => {
      const last = failure(grant.attempt, this.#process.world.clock.now(), 'given up')
      return { offset, kind: 'dead', reason: 'attempts', failure: last }
    })
  }

  release(grants: readonly Grant[]): Promise<readonly LeaseId[]> {
    return this.#except(grants, (offset) => ({ offset, kind: 'release' }))
  }

  /** Ends waiting pulls, and makes later ones useless. */
  stopPulling(): void {
    this.#stopping.abort()
  }

  close(): Promise<void> {
    return this.source.close()
  }

  #except(
    grants: readonly Grant[],
    exceptionFor: (offset: number, grant: Grant) => SettledException,
  ): Promise<readonly LeaseId[]> {
    return this.source.settle(
      grants.map((grant) => {
        const exceptions = grant.messages.map(({ offset }) => exceptionFor(offset, grant))
        return { lease: grant.lease, acked: [], exceptions }
      }),
    )
  }
}
