import { setTimeout as wait } from 'node:timers/promises'
import { connect, PosthornError, queue } from 'posthorn'

const exports = queue<{ readonly rows: number }>('exports')
await using post = await connect('sqlite:data/exports.db')
const started = Promise.withResolvers<void>()
const stopped = Promise.withResolvers<string>()

// #region subscribe
post.subscribe(exports, async (event, { signal }) => {
  try {
    started.resolve()
    await wait(event.data.rows, undefined, { signal })
  } catch (error) {
    if (signal.reason instanceof PosthornError) stopped.resolve(signal.reason.code)
    throw error
  }
})
// #endregion

// #region delayed
const { id } = await post.publish(exports, { rows: 10 }, { delay: '1h' })
console.log(await post.admin.cancel(exports, id))
// #endregion

// #region running
await post.publish(exports, { rows: 60_000 }, { id: 'export-7' })
await started.promise
console.log(await post.admin.cancel(exports, 'export-7'))
console.log(await stopped.promise)
// #endregion

// #region unknown
console.log(await post.admin.cancel(exports, 'export-7'))
// #endregion
