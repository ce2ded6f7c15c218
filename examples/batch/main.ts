import { connect, topic } from 'posthorn'

interface PageView {
  readonly path: string
}

const pageViewed = topic<PageView>('page.viewed')
await using post = await connect('sqlite:data/views.db')
const { promise: done, resolve } = Promise.withResolvers<void>()
const stored: string[] = []

async function insertRows(views: readonly PageView[]): Promise<void> {
  stored.push(...views.map((view) => view.path))
  resolve()
}

await post.publishAll(pageViewed, [{ path: '/' }, { path: '/bad' }, { path: '/about' }])

// #region subscribe
post.subscribe(
  pageViewed,
  'warehouse',
  async (events, batch) => {
    const good = events.filter((event) => event.data.path !== '/bad')
    await insertRows(good.map((event) => event.data))
    for (const event of events) {
      if (!good.includes(event)) batch.fail(event, new Error('The path is bad.'))
    }
  },
  { batch: { size: 500, wait: '50ms' }, concurrency: 2 },
)
// #endregion

await done
console.log(stored.join(' '))
