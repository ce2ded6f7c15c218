import type { Admission, AdmissionDemand, Buckets, FinishedMessages } from '../engine.ts'

/**
 * The places in flight that a source holds, by session. The places of a session are free once it is lost, though their
 * messages may still be running: what is reported of those as finished must not free places of the session after it.
 */
export class AdmittedPlaces {
  #sessionId: string | number = 0
  #held = new Map<string, number>()
  readonly #lost = new Map<string, number>()

  /** What to report of messages that ended: those whose places are still held. Nothing is changed. */
  heldOf(finished: readonly FinishedMessages[]): FinishedMessages[] {
    const left = new Map<string, number>()
    return finished.flatMap(({ buckets, messages }) => {
      const name = nameOf(buckets)
      const lost = left.get(name) ?? this.#lost.get(name) ?? 0
      left.set(name, Math.max(0, lost - messages))
      return messages > lost ? [{ buckets, messages: messages - lost }] : []
    })
  }

  /** The engine has answered: what is `finished` is recorded, and what was admitted is held by this session. */
  update(
    finished: readonly FinishedMessages[],
    demands: readonly AdmissionDemand[],
    admissions: readonly Admission[],
    sessionId: string | number,
  ): void {
    for (const { buckets, messages } of finished) this.#finish(nameOf(buckets), messages)
    if (sessionId !== this.#sessionId) this.#loseAll(sessionId)
    for (const [index, { buckets }] of demands.entries()) {
      add(this.#held, nameOf(buckets), admissions[index]!.startsInMs.length)
    }
  }

  #finish(name: string, messages: number): void {
    const lost = Math.min(messages, this.#lost.get(name) ?? 0)
    add(this.#lost, name, -lost)
    add(this.#held, name, lost - messages)
  }

  #loseAll(sessionId: string | number): void {
    this.#sessionId = sessionId
    for (const [name, messages] of this.#held) add(this.#lost, name, messages)
    this.#held = new Map()
  }
}

function add(counts: Map<string, number>, name: string, messages: number): void {
  const count = (counts.get(name) ?? 0) + messages
  if (count > 0) counts.set(name, count)
  else counts.delete(name)
}

function nameOf(buckets: Buckets): string {
  return JSON.stringify(buckets)
}
