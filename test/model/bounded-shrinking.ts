import fc from 'fast-check'

/** Most failures are about as small as they get after this long. */
const SHRINKING_MS = 20_000

/**
 * A predicate for a property whose stories are dear to tell: once it has failed, it is asked for smaller failures for
 * some seconds only, so that a red run ends while somebody still waits for it. The seed and the path that fast-check
 * prints tell the story again.
 */
export function boundedShrinking<Story>(tell: (story: Story) => Promise<void>): (story: Story) => Promise<void> {
  let failedAt: number | undefined
  return async (story) => {
    fc.pre(failedAt === undefined || performance.now() - failedAt < SHRINKING_MS)
    try {
      await tell(story)
    } catch (error) {
      failedAt ??= performance.now()
      throw error
    }
  }
}
