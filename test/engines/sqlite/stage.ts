/** The writer itself, on this thread and by a clock of the test. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { Liveness } from '../../../src/engines/sqlite/liveness.ts'
import type { CallResult, Command, ThreadData, Turn, WireGrant } from '../../../src/engines/sqlite/protocol.ts'
import { packGroup } from '../../../src/engines/sqlite/wire-group.ts'
import { Writer } from '../../../src/engines/sqlite/writer/writer.ts'
import { newGroup, newMessage, type PublishOptions } from '../../conformance/messages.ts'
import { HERE, topicConfig } from './bench.ts'

export const LEASE_MS = 1_000
export const START_MS = 1_700_000_000_000

export type Call = Omit<Extract<Command, { call: number }>, 'call'>

/** A writer on this thread, by a clock of the test. */
export class Stage {
  readonly turns: Turn[] = []
  readonly writer: Writer
  readonly liveness = new Liveness()
  nowMs: number
  #call = 0
  #partitions = 1

  constructor(test: TestContext, file: string, data: Partial<ThreadData> = {}, nowMs = START_MS) {
    this.nowMs = nowMs
    const clock = { real: true, now: () => this.nowMs, elapsedMs: () => this.nowMs, setTimer: () => ({ cancel() {} }) }
    this.liveness.trust(1e9)
    this.liveness.beat(nowMs)
    const threadData = { address: { file }, leaseMs: LEASE_MS, liveness: this.liveness.buffer, ...data }
    this.writer = new Writer(
      threadData,
      clock,
      (turn) => this.turns.push(turn),
      () => {},
    )
    test.after(() => this.writer.turn([{ kind: 'close', call: 0 }]))
  }

  /** With a topic, a subscription and a source. */
  static ready(test: TestContext, file: string, { ordered = false, partitions = 1 } = {}): Stage {
    const stage = new Stage(test, file)
    stage.#partitions = partitions
    stage.call({ kind: 'ensureTopic', config: { ...topicConfig, partitions } } as Call)
    stage.call({ kind: 'ensureSubscription', config: { ...HERE, maxCrashes: 2, ordered, maxParked: 1_000 } } as Call)
    stage.call({ kind: 'openSource', source: 1, options: HERE } as Call)
    return stage
  }

  call(command: Call): CallResult {
    const call = ++this.#call
    this.writer.turn([{ ...command, call } as Command])
    const result = this.turns.flatMap(({ results }) => results).find((item) => item.call === call)
    assert.ok(result)
    return result
  }

  append(data: unknown, options: PublishOptions = {}): CallResult {
    const { group } = packGroup(newGroup([newMessage(data, this.nowMs, options)]), this.#partitions, 0)
    return this.call({ kind: 'append', groups: [group] } as Call)
  }

  pull(): readonly WireGrant[] {
    this.writer.turn([pullOf(1)])
    return this.granted(1)
  }

  /** What a pull of source 1 was answered. */
  granted(pull: number): readonly WireGrant[] {
    const answers = this.turns.flatMap(({ grants }) => grants).filter((result) => result.pull === pull)
    return answers.flatMap((result) => ('grants' in result ? result.grants : []))
  }
}

export function pullOf(pull: number): Command {
  return { kind: 'pull', source: 1, pull, messagesMax: 10, bytesMax: 1_000_000 }
}
