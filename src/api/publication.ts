import { describe } from '../message/duration.ts'
import { checkOptionNames, invalidOption } from '../message/options.ts'
import type { Publication } from '../publisher/atomic.ts'
import type { MessageOptions } from '../publisher/publish-options.ts'
import { checkDefinition, type Definition } from './topic.ts'

export interface AtomicOptions {
  /** As for `publish`: the messages are stored if your own transaction commits. */
  readonly tx?: unknown
}

/** They are one transaction of the store, which nobody else can write to meanwhile. */
const MESSAGES_MAX = 10_000

const optionNames = new Set(['tx'])

/**
 * A message to be stored together with others, by `post.publishAll([message(...), message(...)])`. Nothing is checked
 * of it but the definition until then. `options` are those of `publish`, but for the transaction, which all share.
 *
 * Throws POSTHORN_INVALID_OPTION for what `topic()` or `queue()` did not make.
 */
export function message<Input, Output>(
  definition: Definition<Input, Output>,
  payload: NoInfer<Input>,
  options?: MessageOptions,
): Publication {
  checkDefinition(definition)
  return Object.freeze({ definition, payload, options })
}

/** Throws POSTHORN_INVALID_OPTION. */
export function checkPublications(given: readonly unknown[]): asserts given is readonly Publication[] {
  if (given.length > MESSAGES_MAX) {
    const problem = `there are ${given.length}; expected at most ${MESSAGES_MAX} that are stored together`
    throw invalidOption('messages', problem)
  }
  for (const [index, publication] of given.entries()) {
    if (typeof publication === 'object' && publication !== null && 'definition' in publication) {
      checkDefinition(publication.definition)
    } else {
      const problem = `it is ${describe(publication)}; expected what message() returned`
      throw invalidOption(`messages[${index}]`, problem)
    }
  }
}

/** The transaction to publish in, or undefined. Throws POSTHORN_INVALID_OPTION. */
export function readAtomicOptions(options: AtomicOptions): unknown {
  checkOptionNames('publishAll options', options, optionNames)
  return options.tx
}
