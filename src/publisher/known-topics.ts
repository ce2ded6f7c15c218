/**
 * Makes topics exist in the store before their first use, once per definition and connection.
 *
 * State: per definition the promise of its `ensureTopic`, and the names of the topics that are known to exist. A failed one is forgotten, so that the next use tries again;
 * so is every definition of a topic that was deleted.
 */
import type { Engine } from '../engine.ts'
import type { Publishable } from './publishable.ts'

export class KnownTopics {
  readonly #engine: Engine
  // Weak, because a definition may be made anew for every call.
  #ensured = new WeakMap<Publishable, Promise<void>>()
  readonly #names = new Set<string>()

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** Resolves once the topic exists with its present configuration. */
  ensure(definition: Publishable): Promise<void> {
    let ensured = this.#ensured.get(definition)
    if (ensured === undefined) {
      ensured = this.#engine.ensureTopic(definition.config)
      this.#ensured.set(definition, ensured)
      ensured.then(
        () => this.#names.add(definition.name),
        () => this.forget(definition),
      )
    }
    return ensured
  }

  /** Whether a topic of this name has been made sure of, by whichever definition. */
  has(name: string): boolean {
    return this.#names.has(name)
  }

  forget(definition: Publishable): void {
    this.#ensured.delete(definition)
    this.#names.delete(definition.name)
  }

  forgetAll(): void {
    this.#ensured = new WeakMap()
    this.#names.clear()
  }
}
