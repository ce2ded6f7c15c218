/**
 * The processes that are killed and started again. Each has a name, and an incarnation that counts its starts.
 *
 * A process that ends though it was neither killed nor asked to stop has found a fault: `failure` rejects.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { Assignment } from './processes/child.ts'

const programs = {
  publisher: new URL('./processes/publisher.ts', import.meta.url),
  consumer: new URL('./processes/consumer.ts', import.meta.url),
}

export type Role = keyof typeof programs

export class Fleet {
  readonly failure: Promise<never>
  readonly #fail: (error: Error) => void
  readonly #members: Member[] = []

  constructor() {
    const { promise, reject } = Promise.withResolvers<never>()
    promise.catch(() => {})
    this.failure = promise
    this.#fail = reject
  }

  get members(): readonly Member[] {
    return this.#members
  }

  add(role: Role, assignment: Omit<Assignment, 'incarnation'>): Member {
    const member = new Member(role, assignment, this.#fail)
    this.#members.push(member)
    return member
  }

  having(role: Role): readonly Member[] {
    return this.#members.filter((member) => member.role === role)
  }

  /** Resolves once all work. */
  async ready(): Promise<void> {
    await Promise.race([Promise.all(this.#members.map((member) => member.ready)), this.failure])
  }

  async stop(role: Role): Promise<void> {
    await Promise.race([Promise.all(this.having(role).map((member) => member.stop())), this.failure])
  }

  /** Ends what is left, however it is. */
  async killAll(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.kill()))
  }
}

export class Member {
  readonly role: Role
  /** Resolves once the present incarnation works; never, if it is killed before. */
  ready: Promise<unknown> = Promise.resolve()
  readonly #assignment: Omit<Assignment, 'incarnation'>
  readonly #fail: (error: Error) => void
  #incarnation = 0
  #child: ChildProcess | undefined

  constructor(role: Role, assignment: Omit<Assignment, 'incarnation'>, fail: (error: Error) => void) {
    this.role = role
    this.#assignment = assignment
    this.#fail = fail
  }

  start(): void {
    const incarnation = this.#incarnation++
    const seed = this.#assignment.seed + incarnation
    const child = fork(programs[this.role], [JSON.stringify({ ...this.#assignment, incarnation, seed })])
    this.#child = child
    this.ready = once(child, 'message')
    child.once('exit', (code, signal) => {
      if (this.#child !== child) return
      this.#fail(new Error(`${this.#assignment.name} ended by itself: ${signal ?? `code ${code}`}.`))
    })
  }

  /** As `kill -9` does. Resolves once the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || hasEnded(child)) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  /** Asks the process to stop in good order, and resolves once it has. */
  async stop(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || hasEnded(child)) return
    const exited = once(child, 'exit')
    child.disconnect()
    await exited
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}
